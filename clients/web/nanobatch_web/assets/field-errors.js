// What the gateway says about fields, at the fields. Value: {places: {"#nb-cap": ["..."]}}.
import {Element, node} from "./base.js";

class FieldErrors extends Element {
  #shown = [];

  stop() {
    this.#clear();
  }

  changed() {
    this.#clear();
    const places = Object.entries(this.value.places ?? {});
    for (const [index, [selector, sentences]] of places.entries()) {
      const place = document.querySelector(selector);
      if (!place) continue;
      const id = `nb-field-error-${index}`;
      const said = node("p", {class: "nb-wrong", id, role: "alert"}, sentences.join(" "));
      const field = place.querySelector("input:not([type=hidden]), textarea");
      field?.setAttribute("aria-invalid", "true");
      field?.setAttribute("aria-describedby", id);
      place.append(said);
      this.#shown.push({said, field});
      const mended = () => { said.remove(); this.#mend(field); };
      place.addEventListener("input", mended, {once: true});
      place.addEventListener("nb-change", mended, {once: true});
      if (index === 0) this.#lead(field ?? place, 40);
    }
  }

  // To the first place, once the step that it stands in is shown.
  #lead(target, tries) {
    if (target.offsetParent === null) {
      if (tries) setTimeout(() => this.#lead(target, tries - 1), 50);
      return;
    }
    target.scrollIntoView({block: "center"});
    target.focus();
  }

  #mend(field) {
    field?.removeAttribute("aria-invalid");
    field?.removeAttribute("aria-describedby");
  }

  #clear() {
    for (const {said, field} of this.#shown) {
      said.remove();
      this.#mend(field);
    }
    this.#shown = [];
  }
}

customElements.define("nb-field-errors", FieldErrors);
