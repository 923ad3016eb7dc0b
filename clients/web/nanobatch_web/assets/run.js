// The live board of a run: one bar, numbers, a card for each wanted picture.
import {clock, dollars, duration, Element, MOUNT, node, post, sentence, toast, write} from "./base.js";
import {Cards} from "./cards.js";
import {Live} from "./live.js";
import {canAsk, News} from "./news.js";
import {resumeForm} from "./resume.js";

class Run extends Element {
  #live = null;
  #execution = "";
  #known = false; // whether the run was drawn once: an end that comes later leads on
  #title = document.title;
  #paused = ""; // what the resume form was made for

  start() {
    this.bar = node("progress", {max: 100, value: 0, "aria-label": this.say("run.progress")});
    this.numbers = node("ul", {class: "nb-numbers"});
    this.note = node("p", {class: "nb-note", role: "status", hidden: true});
    this.going = node("div", {});
    this.trouble = node("p", {class: "nb-note nb-bad", role: "alert", hidden: true});
    const button = (key, act) => node("button", {type: "button", class: "nb-button", onclick: act}, this.say(key));
    this.pause = button("run.pause", () => this.#pauseIt());
    this.cancel = button("run.cancel", () => this.#cancel());
    this.ask = button("run.notify", () => this.#askToNotify());
    this.all = node("a", {class: "nb-button"}, this.say("run.view_all"));
    this.cards = new Cards(this);
    this.news = new News(this);
    this.body = node("div", {hidden: true}, this.bar, this.numbers, this.note, this.going,
      node("div", {class: "nb-row"}, this.pause, this.cancel, this.ask, this.all), this.cards.list);
    this.empty = node("p", {class: "nb-info"}, this.say("run.none"));
    this.replaceChildren(this.trouble, this.empty, this.body);
  }

  stop() {
    this.#live?.stop();
    this.#live = null;
    this.#execution = "";
    this.news?.stop();
    document.title = this.#title;
  }

  changed() {
    const execution = this.value.execution ?? "";
    if (execution === this.#execution) return;
    this.stop();
    this.#execution = execution;
    this.#known = false;
    this.#paused = "";
    this.execution = null;
    this.ended = false;
    this.waiting = null;
    this.cards.clear();
    this.going.replaceChildren();
    this.body.hidden = true;
    this.trouble.hidden = true;
    this.empty.textContent = this.say(execution ? "run.loading" : "run.none");
    this.empty.hidden = false;
    if (execution) this.#live = new Live(execution, {seen: (...all) => this.#seen(...all), trouble: (kind) => this.#trouble(kind)});
  }

  #trouble(kind) {
    this.trouble.hidden = !kind;
    if (kind) this.trouble.textContent = this.say(`run.${kind}`);
    if (kind === "not_found") {
      this.empty.hidden = true;
      this.body.hidden = true;
    }
  }

  #seen(delta) {
    if (!delta.stats) return;
    this.empty.hidden = true;
    this.body.hidden = false;
    if (delta.execution) this.execution = delta.execution;
    for (const result of delta.results) this.news.picture(this.cards.put(result), result);
    if (this.execution) this.news.run(this.execution, delta.stats);
    for (const progress of delta.progress) {
      if (progress.id) this.cards.progress(progress);
      else this.waiting = progress.waiting;
    }
    this.#summary(delta.stats, delta.eta);
    const ended = this.execution?.final ?? false;
    // A run may end between the page's own look at it and the first one here: that leads on as well.
    const leads = ended && !this.ended && (this.#known || !this.value.ended);
    this.ended = ended;
    this.#known = true;
    if (leads) this.tell("nb-submit", {...this.value, ended: true, inSight: this.offsetParent !== null});
  }

  #summary(stats, eta) {
    const left = stats.pending + stats.processing;
    this.bar.value = stats.percent;
    this.bar.textContent = `${stats.percent} %`;
    const facts = {
      percent: `${stats.percent} %`, done: this.counted("run.done", stats.completed),
      failed: this.counted("run.failed", stats.failed), left: this.counted("run.left", left),
      cost: `${dollars(stats.cost)} ${this.say("run.cost")}`,
    };
    if (stats.cancelled) facts.cancelled = this.counted("run.cancelled", stats.cancelled);
    if (stats.uncertain) facts.uncertain = `${dollars(stats.uncertain)} ${this.say("run.maybe")}`;
    if (eta !== null) facts.eta = this.say("run.eta", {duration: duration(eta)});
    this.numbers.replaceChildren(...Object.entries(facts).map(([name, fact]) => node("li", {"data-fact": name}, fact)));
    const execution = this.execution;
    if (!execution) return;
    document.title = execution.final ? this.#title : `${stats.percent} % · ${this.#title}`;
    this.pause.hidden = execution.final || execution.state === "PAUSED";
    this.cancel.hidden = execution.final;
    this.ask.hidden = execution.final || !canAsk();
    this.all.href = `${MOUNT}/results?execution=${encodeURIComponent(this.#execution)}`;
    this.all.hidden = execution.final && this.value.ended === true;
    this.#pausing(execution, left);
  }

  #pausing(execution, left) {
    const paused = execution.state === "PAUSED";
    let told = "";
    if (paused) {
      told = this.say(`pause.${execution.pause}`, {left});
      if (execution.resumes) told += ` ${this.say("pause.until", {time: clock(execution.resumes)})}`;
    } else if (this.waiting && !execution.final) told = this.cards.why(this.waiting);
    this.note.hidden = !told;
    write(this.note, told);
    // Made once for each pause: who types a key in it is not interrupted by what else happens.
    const wanted = paused ? `${execution.pause} ${execution.cap}` : "";
    if (wanted === this.#paused) return;
    this.#paused = wanted;
    if (!wanted) this.going.replaceChildren();
    else if (execution.pause === "MODEL_GONE") this.going.replaceChildren(this.#rest());
    else this.going.replaceChildren(resumeForm(this, execution, (body) => this.#do("resume", body)));
  }

  // A model that is gone stays gone: what is left goes to another one, as a batch of its own.
  #rest() {
    const rest = new URLSearchParams({again: this.#execution, rest: "true"});
    return node("p", {}, node("a", {class: "nb-button nb-primary", href: `${MOUNT}/?${rest}`}, this.say("run.rest")));
  }

  async #do(name, body = {}) {
    const told = await post(`/runs/${encodeURIComponent(this.#execution)}/${name}`, body);
    this.#live?.ask();
    return told;
  }

  async #pauseIt() {
    try {
      await this.#do("pause");
    } catch (error) {
      toast(sentence(this, error), "bad");
    }
  }

  async #cancel() {
    if (!confirm(this.say("run.cancel_sure"))) return;
    try {
      const told = await this.#do("cancel");
      if (told.in_flight && told.maybe_charged) {
        toast(this.say("run.cancel_out", {count: told.in_flight, cost: dollars(told.maybe_charged)}));
      }
    } catch (error) {
      toast(sentence(this, error), "bad");
    }
  }

  async #askToNotify() {
    await Notification.requestPermission();
    this.ask.hidden = !canAsk();
  }
}

customElements.define("nb-run", Run);
