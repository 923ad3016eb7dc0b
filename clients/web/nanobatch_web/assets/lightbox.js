// One picture in full, with what is known of it beside. A modal dialog: the browser keeps the focus in and takes Escape.
import {dollars, node} from "./base.js";

export class Lightbox {
  #results = [];
  #at = 0;

  // `closed(result)` is told which picture was shown last: that is where the focus belongs then.
  constructor(page, closed) {
    this.page = page;
    const button = (key, sign, act, name) =>
      node("button", {type: "button", class: `nb-button ${name}`, "aria-label": page.say(key), onclick: act}, sign);
    this.image = node("img", {alt: "", decoding: "async"});
    this.text = node("p", {class: "nb-prompt", dir: "auto"});
    this.facts = node("dl", {});
    this.place = node("p", {class: "nb-info", role: "status"});
    this.back = button("lightbox.previous", "←", () => this.#step(-1), "nb-previous");
    this.on = button("lightbox.next", "→", () => this.#step(1), "nb-following");
    this.dialog = node("dialog", {
      class: "nb-lightbox", "aria-label": page.say("lightbox.label"), onkeydown: (event) => this.#key(event),
      onclick: (event) => { if (event.target === this.dialog) this.dialog.close(); },
      onclose: () => { this.image.removeAttribute("src"); closed(this.#results[this.#at]); },
    },
    node("div", {class: "nb-big"}, this.image),
    node("div", {class: "nb-beside"},
      node("div", {class: "nb-row nb-between"}, this.back, this.place, this.on,
        button("lightbox.close", "✕", () => this.dialog.close(), "nb-close")),
      this.text, this.facts));
  }

  // Show `result`, one of `results`, which are all that can be stepped through.
  open(results, result) {
    this.#results = results;
    this.#at = results.indexOf(result);
    this.#draw();
    this.dialog.showModal();
  }

  #key(event) {
    const step = {ArrowLeft: -1, ArrowRight: 1}[event.key];
    if (!step) return;
    event.preventDefault();
    this.#step(step);
  }

  #step(step) {
    const at = this.#at + step;
    if (at < 0 || at >= this.#results.length) return;
    this.#at = at;
    this.#draw();
  }

  #draw() {
    const result = this.#results[this.#at];
    const page = this.page;
    const last = this.#results.length - 1;
    this.image.src = result.url;
    this.image.alt = result.text.slice(0, 200);
    this.text.textContent = result.text;
    this.place.textContent = page.say("lightbox.place", {place: this.#at + 1, count: last + 1});
    // Disabled by attribute alone, a button that has the focus would lose it to nowhere.
    this.back.setAttribute("aria-disabled", String(this.#at === 0));
    this.on.setAttribute("aria-disabled", String(this.#at === last));
    const fact = (key, told) => told ? [node("dt", {}, page.say(key)), node("dd", {}, told)] : [];
    this.facts.replaceChildren(
      ...fact("lightbox.time", result.ms === null ? "" : page.say("card.seconds", {seconds: (result.ms / 1000).toFixed(1)})),
      ...fact("lightbox.cost", result.cost ? dollars(result.cost) : page.say("gallery.free")),
      ...fact("lightbox.attempts", String(result.attempts)),
      ...fact("lightbox.size", result.width ? page.say("lightbox.pixels", {width: result.width, height: result.height}) : ""),
    );
  }
}
