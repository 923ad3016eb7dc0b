// The cards of a run: one for each wanted picture, each touched only when something about it has changed.
import {clock, nameOf, node} from "./base.js";

export class Cards {
  #cards = new Map();

  constructor(element) {
    this.element = element;
    this.list = node("ol", {class: "nb-cards"});
  }

  clear() {
    this.#cards.clear();
    this.list.replaceChildren();
  }

  // Returns the result as it was before, or null.
  put(result) {
    const say = (key, facts) => this.element.say(key, facts);
    let card = this.#cards.get(result.id);
    const before = card?.result ?? null;
    if (!card) {
      card = this.#card(result);
      this.#cards.set(result.id, card);
      this.#place(card.item, result);
    }
    card.result = result;
    card.item.dataset.state = result.state;
    card.state.textContent = say(`state.${result.state}`);
    card.text.textContent = result.text;
    card.why.textContent = result.error ? this.#failure(result.error) : result.waiting ? this.why(result.waiting) : "";
    this.#percent(card, result.state === "PROCESSING" ? card.percent : null);
    if (result.thumb && card.image.getAttribute("src") !== result.thumb) {
      card.image.src = result.thumb; // the same address for a day: nothing flickers
      card.image.hidden = false;
    }
    return before;
  }

  progress(progress) {
    const card = this.#cards.get(progress.id);
    if (!card) return;
    if (progress.percent && card.result.state === "PROCESSING") this.#percent(card, progress.percent);
    if (progress.waiting) card.why.textContent = this.why(progress.waiting);
  }

  why(waiting) {
    const reason = this.element.say(`wait.${waiting.reason}`);
    return waiting.until ? this.element.say("wait.until", {reason, time: clock(waiting.until)}) : reason;
  }

  // In the reader's language where there is a sentence of ours; what the provider said stands on the results page.
  #failure(error) {
    return `${this.element.words[`why.${error.code}`] ?? error.message} ${this.element.say(`charged.${error.charged}`)}`;
  }

  // In the order of the prompts, whatever comes first.
  #place(item, result) {
    const later = (other) => other.index > result.index || (other.index === result.index && other.variation > result.variation);
    const last = this.list.lastElementChild;
    const next = last && later(this.#cards.get(last.dataset.id).result)
      ? [...this.list.children].find((child) => later(this.#cards.get(child.dataset.id).result)) : null;
    this.list.insertBefore(item, next);
  }

  #percent(card, percent) {
    card.percent = percent;
    card.bar.hidden = card.result.state !== "PROCESSING";
    if (percent) card.bar.value = percent;
    else card.bar.removeAttribute("value");
  }

  #card(result) {
    const name = nameOf(result);
    const card = {
      image: node("img", {alt: this.element.say("card.picture", {number: name}), loading: "lazy", decoding: "async", hidden: true}),
      state: node("span", {class: "nb-state"}),
      text: node("p", {class: "nb-text", dir: "auto"}),
      why: node("p", {class: "nb-why", dir: "auto"}),
      bar: node("progress", {max: 100, "aria-label": this.element.say("card.progress", {number: name})}),
      percent: null,
    };
    card.item = node("li", {class: "nb-card", "data-id": result.id},
      node("div", {class: "nb-frame"}, card.image), node("span", {class: "nb-number"}, name),
      card.state, card.bar, card.text, card.why);
    return card;
  }
}
