// Every prompt once more: numbered, editable, removable, with what is wrong beside it.
import {Element, node} from "./base.js";

const TYPED = 700; // milliseconds without a key until the price is asked for anew

// Value: {form: {prompts, ...}, problems: {"3": ["..."]}, nonce, edit}. A new nonce is a new list. `edit` counts what was changed here; an answer to an older
// one says nothing about what stands here now.
class Review extends Element {
  #rows = [];
  #edit = 0;
  #nonce = null;
  #timer = null;

  stop() {
    clearTimeout(this.#timer);
  }

  changed() {
    const prompts = this.value.form?.prompts ?? [];
    const {edit = 0, nonce = ""} = this.value;
    const same = nonce === this.#nonce;
    if (same && edit < this.#edit) {
      setTimeout(() => this.#changed(), 0); // what stands here is newer: say so again
      return;
    }
    // Nothing that is being typed in is ever redrawn: only a list that comes from elsewhere is.
    if (!same || (edit > this.#edit && this.#rows.length !== prompts.length)) {
      this.#nonce = nonce;
      this.#draw(prompts);
    }
    this.#edit = edit;
    const problems = this.value.problems ?? {};
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
    const prompts = this.#rows.map((row) => row.box.value.trim());
    if (JSON.stringify(prompts) === JSON.stringify(this.value.form?.prompts)) return;
    this.#edit += 1;
    // A prompt that is changed keeps the pictures that are its own.
    const own = this.#rows.filter((row) => row.own).map((row) => ({...row.own, text: row.box.value.trim()}));
    this.tell("nb-change", {...this.value, form: {...this.value.form, prompts, own}, edit: this.#edit});
  }
}

customElements.define("nb-review", Review);
