// Every prompt once more: numbered, editable, removable, with what is wrong beside it.
import {Element, node} from "./base.js";

const TYPED = 700; // milliseconds without a key until the price is asked for anew

// A prompt is a paragraph, here as in the first step, where a blank line would part it in two.
const paragraph = (text) => text.split("\n").filter((line) => line.trim()).join("\n").trim();

// Value: {form: {prompts, ...}, nonce, edit}. The server gives lists, each with a nonce of its own; what is changed here is told,
// counted by `edit`. What the server finds wrong comes by `nb-review-problems`: an answer never takes back what is typed meanwhile.
class Review extends Element {
  #rows = [];
  #edit = 0;
  #nonce = null;
  #found = {};
  #timer = null;

  stop() {
    clearTimeout(this.#timer);
  }

  changed() {
    const nonce = this.value.nonce ?? "";
    if (nonce === this.#nonce) return;
    this.#nonce = nonce;
    this.#edit = 0;
    this.#draw(this.value.form?.prompts ?? []);
  }

  // {problems: {"3": ["..."]}, nonce, edit}: of older prompts than those that stand here it says nothing.
  set found(found) {
    this.#found = found;
    this.#mark();
  }

  #mark() {
    const {problems = {}, nonce = "", edit = 0} = this.#found;
    if (nonce !== this.#nonce || edit !== this.#edit) return;
    this.#rows.forEach((row, index) => {
      const wrong = problems[index] ?? [];
      row.wrong.textContent = wrong.join(" ");
      row.box.setAttribute("aria-invalid", String(wrong.length > 0));
    });
  }

  #draw(prompts) {
    clearTimeout(this.#timer);
    this.#rows = prompts.map((prompt) => this.#row(prompt));
    for (const own of this.value.form?.own ?? []) {
      const row = this.#rows.find((one) => !one.own && one.box.value === own.text);
      if (row) row.own = own;
    }
    this.list = node("ol", {class: "nb-review"}, ...this.#rows.map((row) => row.item));
    this.replaceChildren(this.list);
    this.#number();
    this.#mark();
  }

  #row(prompt) {
    const row = {
      box: node("textarea", {rows: Math.min(6, prompt.split("\n").length + 1), dir: "auto"}),
      remove: node("button", {type: "button", class: "nb-icon", onclick: () => this.#remove(row)}, "✕"),
      wrong: node("p", {class: "nb-wrong", role: "alert"}),
    };
    row.box.value = prompt;
    row.box.addEventListener("input", () => {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.#changed(), TYPED);
    });
    row.box.addEventListener("change", () => this.#changed());
    row.item = node("li", {}, row.box, row.remove, row.wrong);
    return row;
  }

  #number() {
    this.#rows.forEach((row, index) => {
      const number = index + 1;
      row.box.setAttribute("aria-label", this.say("review.prompt", {number}));
      row.remove.setAttribute("aria-label", this.say("review.remove", {number}));
      row.wrong.id = `nb-wrong-${number}`;
      row.box.setAttribute("aria-describedby", row.wrong.id);
    });
  }

  #remove(row) {
    const index = this.#rows.indexOf(row);
    this.#rows.splice(index, 1);
    row.item.remove();
    this.#number();
    // Who removes by keyboard goes on where they are.
    (this.#rows[index] ?? this.#rows[index - 1])?.remove.focus();
    this.#changed();
  }

  #changed() {
    clearTimeout(this.#timer);
    const prompts = this.#rows.map((row) => paragraph(row.box.value));
    if (JSON.stringify(prompts) === JSON.stringify(this.value.form?.prompts)) return;
    this.#edit += 1;
    // A prompt that is changed keeps the pictures that are its own.
    const own = this.#rows.filter((row) => row.own).map((row) => ({...row.own, text: paragraph(row.box.value)}));
    this.tell("nb-change", {...this.value, form: {...this.value.form, prompts, own}, edit: this.#edit});
  }
}

class ReviewProblems extends Element {
  changed() {
    const review = document.querySelector("nb-review");
    if (review) review.found = this.value;
  }
}

customElements.define("nb-review", Review);
customElements.define("nb-review-problems", ReviewProblems);
