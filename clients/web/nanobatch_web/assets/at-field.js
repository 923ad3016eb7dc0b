// What is wrong with a field, said at it until it is mended.
import {node} from "./base.js";

let fields = 0;

export class AtField {
  constructor(field) {
    this.field = field;
    this.said = node("p", {class: "nb-wrong", role: "alert", id: `nb-at-field-${++fields}`});
    field.setAttribute("aria-describedby", this.said.id);
    field.addEventListener("input", () => this.clear());
  }

  // `bad`: what was typed is to blame.
  tell(sentence, bad = true) {
    this.said.textContent = sentence;
    this.field.setAttribute("aria-invalid", String(bad));
    this.field.focus();
  }

  clear() {
    this.said.textContent = "";
    this.field.removeAttribute("aria-invalid");
  }
}
