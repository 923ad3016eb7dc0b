// All runs, newest first and as they are now: to be opened, run again with changes, or deleted.
import {dollars, Element, get, moment, MOUNT, node, outOf, post, sentence, toast, unanswered, write} from "./base.js";

const PAGE = 20;
const MOST = 200; // how many are looked at again; older ones stay as they were when they were asked for
const BUSY_PAUSE = 2000; // also while nobody answers
const IDLE_PAUSE = 10_000;

class History extends Element {
  #next = "";
  #batches = new Map(); // id -> {run, told, item}
  #timer = null;
  #look = () => { if (!document.hidden) this.#refresh(); };

  start() {
    this.trouble = node("p", {class: "nb-note nb-bad", role: "alert", hidden: true});
    this.empty = node("p", {class: "nb-info", role: "status"}, this.say("history.loading"));
    this.list = node("ol", {class: "nb-history", "aria-label": this.say("history.label"), tabindex: -1});
    this.more = node("button", {type: "button", class: "nb-button", hidden: true, onclick: () => this.#load()}, this.say("history.more"));
    this.replaceChildren(this.trouble, this.empty, this.list, this.more);
    document.addEventListener("visibilitychange", this.#look);
    this.#load();
  }

  stop() {
    clearTimeout(this.#timer);
    this.#timer = null;
    document.removeEventListener("visibilitychange", this.#look);
  }

  async #load() {
    this.more.disabled = true;
    const page = await this.#page({token: this.#next, count: PAGE});
    this.more.disabled = false;
    if (page) {
      this.#next = page.next;
      for (const run of page.runs) this.#put(run, this.list.children.length);
      this.#settle();
    }
    this.#soon();
  }

  // A page of the history, or null. What there is stays as it was then, until the next look, which comes by itself.
  async #page(query) {
    try {
      const page = await get(`/history?${new URLSearchParams(query)}`);
      this.trouble.hidden = true;
      return page;
    } catch (error) {
      this.empty.hidden = true;
      this.trouble.hidden = false;
      write(this.trouble, unanswered(error) ? this.say("reconnect.waiting") : sentence(this, error));
      return null;
    }
  }

  // A hidden tab asks for nothing; it looks again when somebody does.
  #soon() {
    clearTimeout(this.#timer);
    const busy = [...this.#batches.values()].some(({run}) => !run.final);
    const pause = busy || !this.trouble.hidden ? BUSY_PAUSE : IDLE_PAUSE;
    if (this.started && !document.hidden) this.#timer = setTimeout(() => this.#refresh(), pause);
  }

  async #refresh() {
    const known = new Set(this.#batches.keys());
    const count = Math.min(MOST, Math.max(PAGE, Math.ceil(known.size / PAGE) * PAGE));
    const page = await this.#page({count});
    if (page) {
      page.runs.forEach((run, place) => this.#put(run, place));
      // What lay within this page and is not in it any more was deleted elsewhere. What is new pushed older ones out of it.
      const found = new Set(page.runs.map((run) => run.id));
      const oldest = page.next ? Date.parse(page.runs.at(-1).created) : -Infinity;
      for (const id of known) {
        const batch = this.#batches.get(id);
        if (batch && !found.has(id) && Date.parse(batch.run.created) > oldest) this.#remove(id);
      }
      if (!known.size) this.#next = page.next;
      this.#settle();
    }
    this.#soon();
  }

  #settle() {
    this.more.hidden = !this.#next;
    this.empty.hidden = this.list.children.length > 0;
    this.empty.textContent = this.say("history.none");
  }

  // Draws a run anew only where something about it has changed: who has a button in focus keeps it.
  #put(run, place) {
    const known = this.#batches.get(run.id);
    const told = JSON.stringify(run);
    if (known?.told === told) return;
    const item = this.#batch(run);
    this.#batches.set(run.id, {run, told, item});
    if (!known) {
      this.list.insertBefore(item, this.list.children[place] ?? null);
      return;
    }
    const focused = [...known.item.querySelectorAll("a, button")].indexOf(document.activeElement);
    known.item.replaceWith(item);
    if (focused >= 0) item.querySelectorAll("a, button")[focused]?.focus();
  }

  #remove(id) {
    this.#batches.get(id)?.item.remove();
    this.#batches.delete(id);
  }

  #batch(run) {
    const id = encodeURIComponent(run.id);
    const page = run.final ? `${MOUNT}/results` : `${MOUNT}/`;
    const place = `${page}?execution=${id}`;
    const percent = run.stats.percent;
    const cover = run.cover ? [node("img", {src: run.cover, alt: "", loading: "lazy", decoding: "async"})] : [];
    const button = (key, act) => node("button", {type: "button", class: "nb-button nb-small", onclick: act}, this.say(key));
    const bar = run.final ? [] : [node("progress", {max: 100, value: percent, "aria-label": this.say("run.progress")})];
    const cost = run.stats.cost || run.estimated ? dollars(run.stats.cost) : this.say("gallery.free");
    return node("li", {class: "nb-batch", "data-id": run.id, "data-state": run.state},
      node("a", {class: "nb-frame", href: place, tabindex: -1, "aria-hidden": "true"}, ...cover),
      node("div", {},
        node("p", {}, node("strong", {}, moment(run.created)), " · ", node("span", {class: "nb-state"}, this.say(`state.${run.state}`))),
        node("p", {}, [run.model, outOf(this, run.stats), cost].join(" · ")),
        ...bar,
        node("div", {class: "nb-row"},
          node("a", {class: "nb-button nb-small", href: place}, this.say("history.open")),
          node("a", {class: "nb-button nb-small", href: `${MOUNT}/?again=${id}`}, this.say("history.again")),
          ...(run.final ? [button("history.delete", () => this.#delete(run))] : []))));
  }

  async #delete(run) {
    if (!confirm(this.say("history.delete_sure", {count: run.stats.completed}))) return;
    try {
      await post(`/runs/${encodeURIComponent(run.id)}/delete`);
      this.#remove(run.id);
      this.list.focus();
      this.#settle();
      toast(this.say("history.deleted"));
    } catch (error) {
      toast(sentence(this, error), "bad");
    }
  }
}

customElements.define("nb-history", History);
