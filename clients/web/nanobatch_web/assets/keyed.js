// Wishes that cost money: each is asked for once, however often it is clicked, and with the provider's key where that is
// missed. The key is asked for, sent once, and kept nowhere.
import {AtField} from "./at-field.js";
import {node, post, sentence, toast, unanswered} from "./base.js";

const missesKey = (error) => error.code === "KEY_NEEDED" || error.fields.some((field) => field.field === "api_key");

// Browsers have crypto.randomUUID on https and this machine alone.
function requestId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const digits = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return digits.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

export class Keyed {
  #ids = new Map(); // of wishes without an answer so far: told again by the same id, none is granted twice
  #asked = new Set(); // wishes that are on their way

  constructor(page) {
    this.page = page;
    this.place = node("div", {class: "nb-ask"});
  }

  // A wish: {path, body, button, done, wrong}. `done` gets the answer; `wrong` gets a failure, which is a toast otherwise.
  wish(wanted) {
    return this.#ask({button: null, wrong: (error) => toast(sentence(this.page, error), "bad"), ...wanted});
  }

  // `form` is where the key was typed.
  async #ask(wanted, key = "", form = null) {
    const {path, body, button, done, wrong} = wanted;
    const name = JSON.stringify([path, body]);
    if (this.#asked.has(name)) return;
    this.#asked.add(name);
    button?.setAttribute("aria-disabled", "true");
    const id = this.#ids.get(name) ?? requestId();
    this.#ids.set(name, id);
    let answer = null, failure = null;
    try {
      answer = await post(path, {...body, api_key: key, request_id: id});
    } catch (error) {
      failure = error;
    }
    this.#asked.delete(name);
    button?.removeAttribute("aria-disabled");
    if (failure && unanswered(failure)) {
      if (form) form.tell(sentence(this.page, failure));
      else wrong(failure);
      return;
    }
    this.#ids.delete(name);
    form?.remove();
    if (!failure) done(answer);
    else if (missesKey(failure)) this.#askKey(wanted, key ? sentence(this.page, failure) : "");
    else wrong(failure);
  }

  #askKey(wanted, wrong) {
    const page = this.page;
    const box = node("input", {type: "password", autocomplete: "off", required: true, "aria-label": page.say("key.label")});
    const at = new AtField(box);
    const go = node("button", {class: "nb-button nb-primary"}, page.say("gallery.key_go"));
    const form = node("form", {
      class: "nb-note",
      onsubmit: (event) => {
        event.preventDefault();
        at.clear();
        this.#ask({...wanted, button: go}, box.value.trim(), {tell: (told) => at.tell(told, false), remove: () => form.remove()});
      },
    },
    node("p", {}, page.say("gallery.key")), at.said,
    node("div", {class: "nb-row"}, box, go,
      node("button", {type: "button", class: "nb-button", onclick: () => form.remove()}, page.say("gallery.never_mind"))));
    this.place.replaceChildren(form);
    if (wrong) at.tell(wrong);
    else box.focus();
  }
}
