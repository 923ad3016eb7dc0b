// One wanted picture on the results page: what it is, what became of it, what can be done with it.
import {AtField} from "./at-field.js";
import {dollars, nameOf, node, Refusal, sentence} from "./base.js";
import {plain} from "./filters.js";

// Signed addresses stay the same for a day: nothing flickers, and the browser loads each thumbnail once.
const savable = (url) => `${url}${url.includes("?") ? "&" : "?"}download`;

export class Card {
  // `does` is what the page does for a card: open, choose, again, reference, retry; each gets the result.
  constructor(page, result, does) {
    this.page = page;
    this.result = result;
    this.does = does;
    const number = nameOf(result);
    const button = (key, act) => node("button", {type: "button", class: "nb-button nb-small", onclick: act}, page.say(key));
    this.image = node("img", {alt: "", loading: "lazy", decoding: "async", hidden: true, width: 256, height: 256});
    this.opener = node("button", {
      type: "button", class: "nb-frame nb-opener", "aria-label": page.say("card.open", {number}), disabled: true,
      onclick: () => does.open(this.result),
    }, this.image);
    this.choice = node("input", {
      type: "checkbox", "aria-label": page.say("gallery.choose", {number}), disabled: true,
      onchange: () => does.choose(this.result, this.choice.checked),
    });
    this.state = node("span", {class: "nb-state"});
    this.text = node("p", {class: "nb-text", dir: "auto"});
    this.facts = node("p", {class: "nb-why nb-facts-line"});
    this.why = node("div", {class: "nb-why"});
    this.save = node("a", {class: "nb-button nb-small", hidden: true}, page.say("card.download"));
    this.again = button("gallery.again", () => does.again(this.result, this.again));
    this.reference = button("gallery.reference", () => does.reference(this.result));
    this.retry = button("card.retry", () => this.#edit());
    this.place = node("div", {class: "nb-edit"});
    this.item = node("li", {class: "nb-card", "data-id": result.id, tabindex: -1},
      this.opener, node("span", {class: "nb-number"}, number),
      node("span", {class: "nb-row nb-between"}, this.state, node("label", {class: "nb-choice"}, this.choice, page.say("gallery.pick"))),
      this.text, this.facts, this.why, node("div", {class: "nb-row"}, this.save, this.again, this.reference, this.retry),
      this.place);
    this.show(result);
  }

  show(result) {
    if (this.plain === undefined || this.result.text !== result.text) this.plain = plain(result.text);
    this.result = result;
    const page = this.page;
    const made = result.state === "COMPLETED";
    const given = result.state === "FAILED" || result.state === "CANCELLED";
    this.item.dataset.state = result.state;
    this.state.textContent = page.say(`state.${result.state}`);
    this.text.textContent = result.text;
    if (result.thumb && this.image.getAttribute("src") !== result.thumb) this.image.src = result.thumb;
    this.image.hidden = !result.thumb;
    this.image.alt = made ? result.text.slice(0, 200) : "";
    this.opener.disabled = !made || !result.url;
    this.choice.disabled = !made;
    if (!made && this.choice.checked) {
      this.choice.checked = false;
      this.does.choose(result, false);
    }
    this.save.hidden = !made || !result.url;
    if (result.url) this.save.href = savable(result.url);
    this.again.hidden = !made;
    this.reference.hidden = !made || !result.image;
    this.retry.hidden = !given;
    this.facts.textContent = facts(page, result).join(" · ");
    this.why.replaceChildren(...this.#why(result.error));
    if (!given) this.place.replaceChildren();
  }

  #why(error) {
    if (!error) return [];
    const page = this.page;
    const known = page.words[`why.${error.code}`];
    const lines = [node("p", {}, known ?? error.message), node("p", {}, page.words[`charged.${error.charged}`] ?? "")];
    if (known) lines.push(node("details", {}, node("summary", {}, page.say("gallery.said")), node("p", {}, error.message)));
    return lines;
  }

  #edit() {
    const page = this.page;
    const box = node("textarea", {
      rows: 3, dir: "auto", "aria-label": page.say("gallery.edit", {number: nameOf(this.result)}),
    });
    box.value = this.result.text;
    const at = new AtField(box);
    const go = node("button", {class: "nb-button nb-small nb-primary"}, page.say("gallery.try"));
    const close = () => { this.place.replaceChildren(); this.retry.focus(); };
    const form = node("form", {
      onsubmit: (event) => {
        event.preventDefault();
        at.clear();
        this.does.retry(this.result, box.value.trim(), {
          button: go, wrong: (error) => at.tell(sentence(page, error), error instanceof Refusal && error.fields.length > 0),
          done: () => { this.place.replaceChildren(); this.item.focus(); }, // its buttons go with its failure
        });
      },
      onkeydown: (event) => { if (event.key === "Escape") close(); },
    },
    box, at.said, node("div", {class: "nb-row"}, go,
      node("button", {type: "button", class: "nb-button nb-small", onclick: close}, page.say("gallery.never_mind"))));
    this.place.replaceChildren(form);
    box.focus();
  }
}

// Time, cost and attempts, as far as there are any.
export function facts(page, result) {
  const known = [];
  if (result.ms !== null) known.push(page.say("card.seconds", {seconds: (result.ms / 1000).toFixed(1)}));
  if (result.state === "COMPLETED") known.push(result.cost ? dollars(result.cost) : page.say("gallery.free"));
  else if (result.cost) known.push(dollars(result.cost));
  if (result.attempts) {
    known.push(page.say(result.attempts === 1 ? "card.attempt_one" : "card.attempts", {count: result.attempts}));
  }
  return known;
}
