// The results page: all pictures of a run, live, to be looked at, sifted, taken home and tried again.
import {dollars, Element, moment, MOUNT, node, outOf, post, toast} from "./base.js";
import {Card} from "./card.js";
import {FILTERS, holds, ORDERS} from "./filters.js";
import {Keyed} from "./keyed.js";
import {Lightbox} from "./lightbox.js";
import {Live} from "./live.js";

class Gallery extends Element {
  #cards = new Map();
  #chosen = new Set();
  #live = null;
  #filter = "all";

  start() {
    this.execution = new URLSearchParams(location.search).get("execution") ?? "";
    const path = `/runs/${encodeURIComponent(this.execution)}`;
    this.path = path;
    this.keyed = new Keyed(this);
    this.lightbox = new Lightbox(this, (last) => this.#cards.get(last.id)?.opener.focus());
    this.trouble = node("p", {class: "nb-note nb-bad", role: "alert", hidden: true});
    this.empty = node("p", {class: "nb-info", role: "status"}, this.say(this.execution ? "run.loading" : "gallery.none"));
    this.nothing = node("p", {class: "nb-info", hidden: true}, this.say("gallery.nothing"));
    this.news = node("p", {class: "nb-note", role: "status", hidden: true});
    this.list = node("ol", {class: "nb-cards nb-gallery"});
    this.facts = node("p", {class: "nb-summary-line"});
    this.body = node("div", {hidden: true}, this.facts, this.#sieve(), this.#actions(path), this.keyed.place, this.news, this.list, this.nothing);
    this.replaceChildren(this.trouble, this.empty, this.body, this.lightbox.dialog);
    if (!this.execution) return;
    this.#live = new Live(this.execution, {seen: (delta, fresh) => this.#seen(delta, fresh), trouble: (kind) => this.#trouble(kind)});
  }

  stop() {
    this.#live?.stop();
    this.#live = null;
    this.#cards.clear();
    this.#chosen.clear();
  }

  #sieve() {
    this.filters = Object.fromEntries(Object.keys(FILTERS).map((name) => [name, node("button", {
      type: "button", class: "nb-button", "aria-pressed": String(name === this.#filter), onclick: () => this.#show(name),
    }, this.say(`gallery.${name}`))]));
    this.search = node("input", {
      type: "search", placeholder: this.say("gallery.search"), "aria-label": this.say("gallery.search"), oninput: () => this.#arrange(),
    });
    this.order = node("select", {onchange: () => this.#arrange()},
      ...Object.keys(ORDERS).map((name) => node("option", {value: name}, this.say(`gallery.sort_${name}`))));
    return node("div", {class: "nb-row nb-sieve"},
      node("div", {class: "nb-row", role: "group", "aria-label": this.say("gallery.filters")}, ...Object.values(this.filters)),
      this.search, node("label", {}, `${this.say("gallery.sort")} `, this.order));
  }

  #actions(path) {
    this.zip = node("a", {class: "nb-button", href: `${MOUNT}/nb${path}/archive.zip`, download: true}, this.say("gallery.zip"));
    this.clear = node("button", {type: "button", class: "nb-button", hidden: true, onclick: () => this.#chooseNone()}, this.say("gallery.clear"));
    this.retry = node("button", {type: "button", class: "nb-button", hidden: true, onclick: () => this.#retry({})}, this.say("gallery.retry_all"));
    this.board = node("a", {class: "nb-button", hidden: true, href: `${MOUNT}/?execution=${encodeURIComponent(this.execution)}`},
      this.say("gallery.board"));
    return node("div", {class: "nb-row"}, this.zip, this.clear, this.retry, this.board);
  }

  #trouble(kind) {
    this.trouble.hidden = !kind;
    if (kind) this.trouble.textContent = this.say(`run.${kind}`);
    if (kind === "not_found") this.empty.hidden = true;
  }

  #seen(delta, fresh) {
    if (!delta.stats) return;
    if (fresh) this.#forget(new Set(delta.results.map((result) => result.id)));
    this.empty.hidden = true;
    this.body.hidden = false;
    if (delta.execution) {
      this.about = delta.execution;
      this.board.hidden = delta.execution.final;
    }
    this.#tell(delta.stats);
    for (const result of delta.results) {
      const card = this.#cards.get(result.id);
      if (card) card.show(result);
      else this.#cards.set(result.id, new Card(this, result, this.#deeds));
    }
    for (const [name, button] of Object.entries(this.filters)) {
      const text = `${this.say(`gallery.${name}`)} (${FILTERS[name].counts(delta.stats)})`;
      if (button.textContent !== text) button.textContent = text;
    }
    this.retry.hidden = !delta.stats.failed;
    if (delta.results.length) this.#arrange();
  }

  #tell(stats) {
    const known = [
      ...(this.about ? [moment(this.about.created), this.about.model, this.say(`state.${this.about.state}`)] : []),
      outOf(this, stats),
      ...(stats.cancelled ? [this.counted("run.cancelled", stats.cancelled)] : []),
      stats.cost || this.about?.estimated ? dollars(stats.cost) : this.say("gallery.free"),
      ...(stats.uncertain ? [`${dollars(stats.uncertain)} ${this.say("run.maybe")}`] : []),
    ].join(" · ");
    if (this.facts.textContent !== known) this.facts.textContent = known;
  }

  // What a new copy of the run does not hold any more.
  #forget(kept) {
    for (const [id, card] of this.#cards) {
      if (kept.has(id)) continue;
      card.item.remove();
      this.#cards.delete(id);
      this.#chosen.delete(id);
    }
  }

  #show(name) {
    this.#filter = name;
    for (const [other, button] of Object.entries(this.filters)) button.setAttribute("aria-pressed", String(other === name));
    this.#arrange();
  }

  get #shown() {
    const words = this.search.value;
    return [...this.#cards.values()]
      .filter(({result}) => FILTERS[this.#filter].shows(result) && holds(result.text, words))
      .sort((one, other) => ORDERS[this.order.value](one.result, other.result));
  }

  // Only what is not in its place is moved: focus, and pictures on their way, stay.
  #arrange() {
    const shown = this.#shown.map((card) => card.item);
    const wanted = new Set(shown);
    for (const item of [...this.list.children]) if (!wanted.has(item)) item.remove();
    shown.forEach((item, place) => {
      if (this.list.children[place] !== item) this.list.insertBefore(item, this.list.children[place] ?? null);
    });
    this.nothing.hidden = shown.length > 0;
  }

  #deeds = {
    open: (result) => {
      const results = this.#shown.map((card) => card.result).filter((one) => one.state === "COMPLETED" && one.url);
      this.lightbox.open(results, result);
    },
    choose: (result, wanted) => {
      if (wanted) this.#chosen.add(result.id);
      else this.#chosen.delete(result.id);
      this.#zip();
    },
    again: (result) => {
      const request = crypto.randomUUID?.() ?? ""; // repeated with a key, it is still one wish
      this.keyed.run(async (key) => {
        const child = await post(`${this.path}/again`, {result_ids: [result.id], api_key: key, request_id: request});
        const link = node("a", {href: `${MOUNT}/?execution=${encodeURIComponent(child.id)}`}, this.say("gallery.again_open"));
        this.news.replaceChildren(this.say("gallery.again_started"), " ", link);
        this.news.hidden = false;
      });
    },
    reference: (result) => location.assign(`${MOUNT}/?reference=${encodeURIComponent(result.image)}`),
    retry: (result, text) => this.#retry({result_ids: [result.id], edits: text === result.text ? {} : {[result.id]: text}}),
  };

  #retry(wish) {
    this.keyed.run(async (key) => {
      const told = await post(`${this.path}/retry`, {...wish, api_key: key});
      toast(this.say("gallery.retried", {count: told.retried}));
      this.#live?.ask();
    });
  }

  #chooseNone() {
    for (const id of this.#chosen) this.#cards.get(id).choice.checked = false;
    this.#chosen.clear();
    this.#zip();
  }

  #zip() {
    const count = this.#chosen.size;
    const query = count ? `?result_ids=${[...this.#chosen].join(",")}` : "";
    this.zip.href = `${MOUNT}/nb${this.path}/archive.zip${query}`;
    this.zip.textContent = count ? this.say("gallery.zip_chosen", {count}) : this.say("gallery.zip");
    this.clear.hidden = !count;
  }
}

customElements.define("nb-gallery", Gallery);
