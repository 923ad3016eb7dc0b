// Actions that may need the provider's key: it is asked for when it is missed, sent once, and kept nowhere.
import {node, Refusal, toast} from "./base.js";

const missesKey = (error) => error.code === "KEY_NEEDED" || error.fields.some((field) => field.field === "api_key");

export class Keyed {
  constructor(page) {
    this.page = page;
    this.place = node("div", {class: "nb-ask"});
  }

  // Run `act(key)`, first without one. Whatever else goes wrong is told as a toast.
  async run(act, key = "") {
    try {
      await act(key);
      this.place.replaceChildren();
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      if (missesKey(error)) this.#ask(act, key ? error.fields[0]?.message ?? error.message : "");
      else toast(error.message || this.page.say("error.gateway"), "bad");
    }
  }

  #ask(act, wrong) {
    const page = this.page;
    const box = node("input", {type: "password", autocomplete: "off", required: true, "aria-label": page.say("key.label")});
    const form = node("form", {
      class: "nb-note",
      onsubmit: (event) => {
        event.preventDefault();
        const key = box.value.trim();
        box.value = "";
        this.run(act, key);
      },
    },
    node("p", {}, page.say("gallery.key")), node("p", {class: "nb-wrong", role: "alert"}, wrong),
    node("div", {class: "nb-row"}, box, node("button", {class: "nb-button nb-primary"}, page.say("gallery.key_go")),
      node("button", {type: "button", class: "nb-button", onclick: () => this.place.replaceChildren()}, page.say("gallery.never_mind"))));
    this.place.replaceChildren(form);
    box.focus();
  }
}
