// The live board of a run: one bar, numbers, a card for each wanted picture.
import {clock, dollars, duration, Element, MOUNT, node, post, Refusal, toast} from "./base.js";
import {Live} from "./live.js";

class Run extends Element {
  #cards = new Map();
  #results = new Map();
  #live = null;
  #execution = "";
  #known = false; // whether the first picture of the run was drawn: what comes later is news
  #title = document.title;

  start() {
    this.bar = node("progress", {max: 100, value: 0, "aria-label": this.say("run.progress")});
    this.numbers = node("p", {class: "nb-numbers", role: "status"});
    this.note = node("p", {class: "nb-note", role: "alert", hidden: true});
    this.trouble = node("p", {class: "nb-note nb-bad", role: "alert", hidden: true});
    const act = (key, name) => node("button", {type: "button", class: "nb-button", onclick: () => this.#act(name)}, this.say(key));
    this.pause = act("run.pause", "pause");
    this.resume = act("run.resume", "resume");
    this.cancel = act("run.cancel", "cancel");
    this.all = node("a", {class: "nb-button nb-primary"}, this.say("run.view_all"));
    this.cards = node("ol", {class: "nb-cards"});
    this.body = node("div", {hidden: true}, this.bar, this.numbers, this.note,
      node("div", {class: "nb-row"}, this.pause, this.resume, this.cancel, this.all), this.cards);
    this.empty = node("p", {class: "nb-info"}, this.say("run.none"));
    this.replaceChildren(this.trouble, this.empty, this.body);
  }

  stop() {
    this.#live?.stop();
    this.#live = null;
    this.#execution = "";
    document.title = this.#title;
  }

  changed() {
    const execution = this.value.execution ?? "";
    if (execution === this.#execution) return;
    this.#live?.stop();
    this.#execution = execution;
    this.#known = false;
    this.#cards.clear();
    this.#results.clear();
    this.cards.replaceChildren();
    this.body.hidden = true;
    this.trouble.hidden = true;
    this.empty.textContent = this.say(execution ? "run.loading" : "run.none");
    this.empty.hidden = false;
    document.title = this.#title;
    this.#live = execution ? new Live(execution, {seen: (...all) => this.#seen(...all), trouble: (kind) => this.#trouble(kind)}) : null;
  }

  #trouble(kind) {
    this.trouble.hidden = !kind;
    if (kind) this.trouble.textContent = this.say(`run.${kind}`);
    if (kind === "not_found") this.empty.hidden = true;
  }

  #seen(delta, fresh) {
    if (!delta.stats) return;
    if (fresh && this.#cards.size > delta.results.length) {
      this.#cards.clear();
      this.cards.replaceChildren();
    }
    this.empty.hidden = true;
    this.body.hidden = false;
    if (delta.execution) this.execution = delta.execution;
    for (const result of delta.results) this.#result(result);
    for (const progress of delta.progress) this.#progress(progress);
    this.#summary(delta.stats);
    const ended = this.execution?.final ?? false;
    if (ended && !this.ended && this.#known) {
      toast(this.say("run.toast_end", {done: delta.stats.completed, failed: delta.stats.failed}));
      this.#notify(delta.stats);
      this.tell("nb-submit", {...this.value, ended: true});
    }
    this.ended = ended;
    this.#known = true;
  }

  #summary(stats) {
    const left = stats.pending + stats.processing;
    this.bar.value = stats.percent;
    const parts = [
      `${stats.percent} %`, `${stats.completed} ${this.say("run.done")}`, `${stats.failed} ${this.say("run.failed")}`,
      `${left} ${this.say("run.left")}`, `${dollars(stats.cost)} ${this.say("run.cost")}`,
    ];
    if (stats.uncertain) parts.push(`${dollars(stats.uncertain)} ${this.say("run.maybe")}`);
    const eta = this.#eta(left);
    if (eta) parts.push(this.say("run.eta", {duration: duration(eta)}));
    this.numbers.replaceChildren(...parts.map((part) => node("span", {}, part)));
    document.title = left ? `${stats.percent} % · ${this.#title}` : this.#title;
    const execution = this.execution;
    if (!execution) return;
    this.pause.hidden = execution.final || execution.state === "PAUSED";
    this.resume.hidden = execution.state !== "PAUSED";
    this.cancel.hidden = execution.final;
    this.all.href = `${MOUNT}/results?execution=${encodeURIComponent(this.#execution)}`;
    this.note.hidden = execution.state !== "PAUSED";
    if (execution.state === "PAUSED") {
      const until = execution.resumes ? " " + this.say("pause.until", {time: clock(execution.resumes)}) : "";
      this.note.textContent = this.say(`pause.${execution.pause}`, {left}) + until;
    } else if (this.waiting) {
      this.note.hidden = false;
      this.note.textContent = this.#why(this.waiting);
    }
  }

  // From what was finished since the start: honest where nothing is known yet.
  #eta(left) {
    const execution = this.execution;
    if (!left || !execution?.started || execution.state === "PAUSED") return 0;
    const done = [...this.#results.values()].filter((one) => one.state === "COMPLETED" || one.state === "FAILED").length;
    if (done < 2) return 0;
    return ((Date.now() - Date.parse(execution.started)) / 1000 / done) * left;
  }

  #why(waiting) {
    const reason = this.say(`wait.${waiting.reason}`);
    return waiting.until ? this.say("wait.until", {reason, time: clock(waiting.until)}) : reason;
  }

  #result(result) {
    const before = this.#results.get(result.id);
    this.#results.set(result.id, result);
    let card = this.#cards.get(result.id);
    if (!card) {
      card = this.#card(result);
      this.#cards.set(result.id, card);
      this.cards.append(card.item);
    }
    card.item.dataset.state = result.state;
    card.state.textContent = this.say(`state.${result.state}`);
    card.text.textContent = result.text;
    card.why.textContent = result.error ? `${result.error.message} ${this.say(`charged.${result.error.charged}`)}`
      : result.waiting ? this.#why(result.waiting) : "";
    card.bar.hidden = result.state !== "PROCESSING";
    if (result.state !== "PROCESSING") card.bar.removeAttribute("value");
    if (result.thumb && card.image.getAttribute("src") !== result.thumb) {
      card.image.src = result.thumb; // the same address for a day: nothing flickers
      card.image.hidden = false;
    }
    if (this.#known && before && before.state !== "COMPLETED" && result.state === "COMPLETED") {
      toast(this.say("run.toast_one", {number: result.index + 1}));
    }
  }

  #card(result) {
    const card = {
      image: node("img", {alt: "", loading: "lazy", decoding: "async", hidden: true}),
      state: node("span", {class: "nb-state"}),
      text: node("p", {class: "nb-text", dir: "auto"}),
      why: node("p", {class: "nb-why"}),
      bar: node("progress", {max: 100, "aria-label": this.say("review.prompt", {number: result.index + 1})}),
    };
    card.item = node("li", {class: "nb-card"},
      node("div", {class: "nb-frame"}, card.image), node("span", {class: "nb-number"}, String(result.index + 1)),
      card.state, card.bar, card.text, card.why);
    return card;
  }

  #progress(progress) {
    if (!progress.id) {
      this.waiting = progress.waiting;
      return;
    }
    const card = this.#cards.get(progress.id);
    if (!card) return;
    if (progress.percent) card.bar.value = progress.percent;
    if (progress.waiting) card.why.textContent = this.#why(progress.waiting);
  }

  async #act(name) {
    if (name === "cancel" && !confirm(this.say("run.cancel_sure"))) return;
    try {
      const told = await post(`/runs/${encodeURIComponent(this.#execution)}/${name}`);
      if (name === "cancel" && told.in_flight) {
        toast(this.say("run.cancel_out", {count: told.in_flight, cost: dollars(told.maybe_charged)}));
      }
      this.#live?.ask();
    } catch (error) {
      toast(error instanceof Refusal && error.message ? error.message : this.say("error.gateway"), "bad");
    }
  }

  #notify(stats) {
    if (document.hidden && window.Notification?.permission === "granted") {
      new Notification(this.say("run.toast_end", {done: stats.completed, failed: stats.failed}));
    }
  }
}

customElements.define("nb-run", Run);
