// All runs, newest first: to be opened, run again with changes, or deleted.
import {dollars, Element, get, MOUNT, node, post, Refusal, toast} from "./base.js";

class History extends Element {
  #next = "";

  start() {
    this.empty = node("p", {class: "nb-info", role: "status"}, this.say("history.loading"));
    this.list = node("ol", {class: "nb-history", "aria-label": this.say("history.label"), tabindex: -1});
    this.more = node("button", {type: "button", class: "nb-button", hidden: true, onclick: () => this.#load()}, this.say("history.more"));
    this.replaceChildren(this.empty, this.list, this.more);
    this.#load();
  }

  async #load() {
    this.more.disabled = true;
    try {
      const page = await get(`/history?${new URLSearchParams({token: this.#next})}`);
      this.#next = page.next;
      this.list.append(...page.runs.map((run) => this.#batch(run)));
      this.#settle();
    } catch (error) {
      this.empty.hidden = this.list.children.length > 0;
      this.more.hidden = false; // the same button tries again
      this.#complain(error);
    }
    this.more.disabled = false;
  }

  #settle() {
    this.more.hidden = !this.#next;
    this.empty.hidden = this.list.children.length > 0;
    this.empty.textContent = this.say("history.none");
  }

  #complain(error) {
    toast(error instanceof Refusal && error.message ? error.message : this.say("error.gateway"), "bad");
  }

  #batch(run) {
    const id = encodeURIComponent(run.id);
    const page = run.final ? `${MOUNT}/results` : `${MOUNT}/`;
    const place = `${page}?execution=${id}`;
    const made = new Date(run.created).toLocaleString([], {dateStyle: "medium", timeStyle: "short"});
    const {completed: done, total, failed} = run.stats;
    const cover = run.cover ? [node("img", {src: run.cover, alt: "", loading: "lazy", decoding: "async"})] : [];
    const button = (key, act) => node("button", {type: "button", class: "nb-button nb-small", onclick: act}, this.say(key));
    const item = node("li", {class: "nb-batch", "data-id": run.id, "data-state": run.state},
      node("a", {class: "nb-frame", href: place, tabindex: -1, "aria-hidden": "true"}, ...cover),
      node("div", {},
        node("p", {}, node("strong", {}, made), " · ", node("span", {class: "nb-state"}, this.say(`state.${run.state}`))),
        node("p", {}, [run.model, this.say("history.counts", {done, total, failed}), dollars(run.stats.cost)].join(" · ")),
        node("div", {class: "nb-row"},
          node("a", {class: "nb-button nb-small", href: place}, this.say("history.open")),
          node("a", {class: "nb-button nb-small", href: `${MOUNT}/?again=${id}`}, this.say("history.again")),
          ...(run.final ? [button("history.delete", () => this.#delete(run, item))] : []))));
    return item;
  }

  async #delete(run, item) {
    if (!confirm(this.say("history.delete_sure", {count: run.stats.completed}))) return;
    try {
      await post(`/runs/${encodeURIComponent(run.id)}/delete`);
      item.remove();
      this.list.focus();
      this.#settle();
      toast(this.say("history.deleted"));
    } catch (error) {
      this.#complain(error);
    }
  }
}

customElements.define("nb-history", History);
