// The last step: what came out, and where it is.
import {dollars, Element, MOUNT, node} from "./base.js";
import {Live} from "./live.js";

class Outcome extends Element {
  #live = null;
  #execution = "";

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
    this.replaceChildren(node("p", {class: "nb-info"}, this.say(execution ? "run.loading" : "run.none")));
    if (execution) this.#live = new Live(execution, {seen: (delta) => this.#draw(delta), trouble: () => {}});
  }

  #draw(delta) {
    if (!delta.stats) return;
    const stats = delta.stats;
    const left = stats.pending + stats.processing;
    const fact = (figure, key, number = 0) => node("div", {"data-fact": key},
      node("dt", {}, this.word(key, number)), node("dd", {}, figure));
    const count = (number, key) => fact(String(number), key, number);
    this.replaceChildren(
      node("dl", {class: "nb-outcome"},
        count(stats.completed, "run.done"), count(stats.failed, "run.failed"),
        ...(stats.cancelled ? [count(stats.cancelled, "run.cancelled")] : []),
        ...(left ? [count(left, "run.left")] : []),
        fact(dollars(stats.cost), left ? "run.cost" : "run.cost_all"),
        ...(stats.uncertain ? [fact(dollars(stats.uncertain), "run.maybe")] : [])),
      node("a", {class: "nb-button nb-primary", href: `${MOUNT}/results?execution=${encodeURIComponent(this.#execution)}`},
        this.say("run.view_all")));
  }
}

customElements.define("nb-outcome", Outcome);
