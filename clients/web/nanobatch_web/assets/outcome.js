// The last step: what came out, and where it is.
import {arrange, dollars, Element, MOUNT, node, write} from "./base.js";
import {Live} from "./live.js";

class Outcome extends Element {
  #live = null;
  #execution = "";
  #facts = new Map(); // key -> where it is shown

  stop() {
    this.#live?.stop();
    this.#live = null;
    this.#execution = "";
  }

  changed() {
    const execution = this.value.execution ?? "";
    if (execution === this.#execution) return;
    this.stop();
    this.#execution = execution;
    this.#facts.clear();
    this.list = node("dl", {class: "nb-outcome"});
    this.link = node("a", {class: "nb-button nb-primary", href: `${MOUNT}/results?execution=${encodeURIComponent(execution)}`},
      this.say("run.view_all"));
    this.replaceChildren(node("p", {class: "nb-info"}, this.say(execution ? "run.loading" : "run.none")));
    if (execution) this.#live = new Live(execution, {seen: (delta) => this.#draw(delta), trouble: () => {}});
  }

  // Drawn at every look, while somebody clicks: what stays is not made anew.
  #draw(delta) {
    if (!delta.stats) return;
    const stats = delta.stats;
    const left = stats.pending + stats.processing;
    const count = (key, number) => this.#fact(key, String(number), number);
    arrange(this.list, [
      count("run.done", stats.completed), count("run.failed", stats.failed),
      ...(stats.cancelled ? [count("run.cancelled", stats.cancelled)] : []),
      ...(left ? [count("run.left", left)] : []),
      this.#fact(left ? "run.cost" : "run.cost_all", dollars(stats.cost)),
      ...(stats.uncertain ? [this.#fact("run.maybe", dollars(stats.uncertain))] : []),
    ]);
    arrange(this, [this.list, this.link]);
  }

  #fact(key, figure, number = 0) {
    let fact = this.#facts.get(key);
    if (!fact) {
      fact = node("div", {"data-fact": key}, node("dt", {}), node("dd", {}));
      this.#facts.set(key, fact);
    }
    const [name, value] = fact.children;
    write(name, this.word(key, number));
    write(value, figure);
    return fact;
  }
}

customElements.define("nb-outcome", Outcome);
