// The results page: all pictures of a run, live, to be looked at, sifted, taken home and tried again.
import {arrange, dollars, Element, moment, MOUNT, node, outOf, toast, write} from "./base.js";
import {Card} from "./card.js";
import {FILTERS, ORDERS, plain} from "./filters.js";
import {Keyed} from "./keyed.js";
import {Lightbox} from "./lightbox.js";
import {Live} from "./live.js";
import {News} from "./news.js";

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
    this.more = node("p", {class: "nb-note", role: "status", hidden: true});
    this.news = new News(this);
    this.list = node("ol", {class: "nb-cards nb-gallery"});
    this.facts = node("p", {class: "nb-summary-line"});
    this.body = node("div", {hidden: true}, this.facts, this.#sieve(), this.#actions(path), this.keyed.place, this.more, this.list, this.nothing);
    this.replaceChildren(this.trouble, this.empty, this.body, this.lightbox.dialog);
    if (!this.execution) return;
    this.#live = new Live(this.execution, {seen: (delta) => this.#seen(delta), trouble: (kind) => this.#trouble(kind)});
  }

  stop() {
    this.#live?.stop();
    this.#live = null;
    this.news?.stop();
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
    this.retry = node("button", {type: "button", class: "nb-button", hidden: true, onclick: () => this.#retry({}, {button: this.retry})}, this.say("gallery.retry_all"));
    this.board = node("a", {class: "nb-button", hidden: true, href: `${MOUNT}/?execution=${encodeURIComponent(this.execution)}`},
      this.say("gallery.board"));
    return node("div", {class: "nb-row"}, this.zip, this.clear, this.retry, this.board);
  }

  #trouble(kind) {
    this.trouble.hidden = !kind;
    if (kind) this.trouble.textContent = this.say(`run.${kind}`);
    if (kind === "not_found") this.empty.hidden = true;
  }

  #seen(delta) {
    if (!delta.stats) return;
    this.empty.hidden = true;
    this.body.hidden = false;
    if (delta.execution) {
      this.about = delta.execution;
      this.board.hidden = delta.execution.final;
    }
    this.#tell(delta.stats);
    for (const result of delta.results) {
      const card = this.#cards.get(result.id);
      this.news.picture(card?.result, result);
      if (card) card.show(result);
      else this.#cards.set(result.id, new Card(this, result, this.#deeds));
    }
    if (this.about) this.news.run(this.about, delta.stats);
    for (const [name, button] of Object.entries(this.filters)) {
      write(button, `${this.say(`gallery.${name}`)} (${FILTERS[name].counts(delta.stats)})`);
    }
    this.retry.hidden = !delta.stats.failed;
    if (delta.results.length) this.#arrange();
  }

  #tell(stats) {
    write(this.facts, [
      ...(this.about ? [moment(this.about.created), this.about.model, this.say(`state.${this.about.state}`)] : []),
      outOf(this, stats),
      ...(stats.cancelled ? [this.counted("run.cancelled", stats.cancelled)] : []),
      stats.cost || this.about?.estimated ? dollars(stats.cost) : this.say("gallery.free"),
      ...(stats.uncertain ? [`${dollars(stats.uncertain)} ${this.say("run.maybe")}`] : []),
    ].join(" · "));
  }

  #show(name) {
    this.#filter = name;
    for (const [other, button] of Object.entries(this.filters)) button.setAttribute("aria-pressed", String(other === name));
    this.#arrange();
  }

  get #shown() {
    const words = plain(this.search.value);
    return [...this.#cards.values()]
      .filter((card) => FILTERS[this.#filter].shows(card.result) && card.plain.includes(words))
      .sort((one, other) => ORDERS[this.order.value](one.result, other.result));
  }

  #arrange() {
    const shown = this.#shown.map((card) => card.item);
    arrange(this.list, shown);
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
    again: (result, button) => this.keyed.wish({
      path: `${this.path}/again`, body: {result_ids: [result.id]}, button,
      done: (child) => {
        const link = node("a", {href: `${MOUNT}/?execution=${encodeURIComponent(child.id)}`}, this.say("gallery.again_open"));
        this.more.replaceChildren(this.say("gallery.again_started"), " ", link);
        this.more.hidden = false;
      },
    }),
    reference: (result) => location.assign(`${MOUNT}/?reference=${encodeURIComponent(result.image)}`),
    retry: (result, text, told) => this.#retry({result_ids: [result.id], edits: text === result.text ? {} : {[result.id]: text}}, told),
  };

  // `told` is who hears what becomes of it: see Keyed.
  #retry(body, told) {
    this.keyed.wish({
      path: `${this.path}/retry`, body, ...told,
      done: ({retried}) => {
        toast(this.say("gallery.retried", {count: retried}));
        told.done?.();
        this.#live?.ask();
      },
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
