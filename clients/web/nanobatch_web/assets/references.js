// Reference pictures: dropped, pasted or chosen, sent at once, in an order that can be changed by mouse and by keyboard.
// Value: {ids, limit, own}; `own` are prompts that bring pictures, or how many are wanted, from a batch that is run again.
import {Element, get, node, Refusal, sentence, toast, upload} from "./base.js";

const MAX_BYTES = 10 * 1024 * 1024;
const KINDS = ["image/png", "image/jpeg", "image/webp"];

const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);

class References extends Element {
  #shown = new Map(); // id -> address: of the file itself, or signed by the gateway; "" while it is asked for
  #dragged = null;
  #touched = false; // whether somebody has changed what is held since this page was loaded
  #pasted = (event) => {
    const files = [...(event.clipboardData?.files ?? [])].filter((file) => KINDS.includes(file.type));
    if (files.length && this.offsetParent !== null) this.#take(files);
  };

  start() {
    this.input = node("input", {type: "file", accept: KINDS.join(","), multiple: true, hidden: true});
    this.input.addEventListener("change", () => { this.#take([...this.input.files]); this.input.value = ""; });
    this.list = node("ol", {class: "nb-pictures"});
    this.info = node("p", {class: "nb-info"});
    this.button = node("button", {type: "button", class: "nb-button", onclick: () => this.input.click()}, this.say("references.add"));
    this.brought = node("p", {class: "nb-info", hidden: true});
    this.zone = node("section", {class: "nb-drop", "aria-label": this.say("references.label")},
      node("strong", {}, this.say("references.label")), this.info, this.list, this.button, this.brought, this.input);
    this.zone.addEventListener("dragover", (event) => {
      event.preventDefault();
      if (this.#dragged === null) this.zone.classList.add("nb-over");
    });
    this.zone.addEventListener("dragleave", () => this.zone.classList.remove("nb-over"));
    this.zone.addEventListener("drop", (event) => {
      event.preventDefault();
      this.zone.classList.remove("nb-over");
      this.#take([...event.dataTransfer.files]);
    });
    this.replaceChildren(this.zone);
    document.addEventListener("paste", this.#pasted);
  }

  stop() {
    document.removeEventListener("paste", this.#pasted);
    for (const url of this.#shown.values()) if (url.startsWith("blob:")) URL.revokeObjectURL(url);
    this.#shown.clear();
  }

  get value() {
    return super.value;
  }

  // An answer of the server may be older than what was dropped while it was on its way. What a model takes is news;
  // what is held is known best here, and told back so that the component knows it too.
  set value(given) {
    const {ids, own} = this.value;
    super.value = this.#touched ? {...given, ids, own} : given;
    if (this.#touched && !same([given?.ids, given?.own], [ids, own])) this.tell("nb-change", this.value);
  }

  // Prompts that bring pictures, as the review has changed them.
  set own(own) {
    if (!same(own, this.value.own ?? [])) this.#change({own});
  }

  get ids() {
    return this.value.ids ?? [];
  }

  get limit() {
    return this.value.limit ?? 3;
  }

  changed() {
    this.info.textContent = this.limit ? this.say("references.info", {count: this.limit}) : this.say("references.none");
    this.info.classList.toggle("nb-odd", this.ids.length > this.limit);
    this.button.hidden = this.ids.length >= this.limit;
    this.list.replaceChildren(...this.ids.map((id, index) => this.#picture(id, index)));
    const own = this.value.own ?? [];
    this.brought.hidden = !own.length;
    if (own.length) {
      const drop = node("button", {type: "button", class: "nb-button nb-small", onclick: () => this.#change({own: []})},
        this.say("references.own_drop"));
      const pictures = own.filter((prompt) => prompt.source || prompt.references.length).length;
      const numbers = own.filter((prompt) => prompt.variations).length;
      const told = [["references.own", pictures], ["references.number", numbers]].filter(([, count]) => count);
      this.brought.replaceChildren(
        ...told.map(([key, count]) => `${this.say(count === 1 ? `${key}_one` : key, {count})} `), drop);
    }
  }

  #picture(id, index) {
    const number = index + 1;
    const source = this.#shown.get(id);
    if (source === undefined) this.#find(id);
    const button = (key, sign, disabled, act) =>
      node("button", {type: "button", class: "nb-icon", "aria-label": this.say(key, {number}), disabled, onclick: act}, sign);
    const alt = this.say("references.picture", {number});
    const item = node("li", {draggable: "true"},
      source ? node("img", {src: source, alt, draggable: "false"}) : node("span", {class: "nb-blank"}, alt),
      node("span", {class: "nb-row"},
        button("references.earlier", "←", index === 0, () => this.#step(id, index - 1, 0)),
        button("references.later", "→", index === this.ids.length - 1, () => this.#step(id, index + 1, 1)),
        button("references.remove", "✕", false, () => this.#set(this.ids.filter((other) => other !== id)))));
    item.addEventListener("dragstart", () => { this.#dragged = id; });
    item.addEventListener("dragend", () => { this.#dragged = null; });
    item.addEventListener("dragover", (event) => event.preventDefault());
    item.addEventListener("drop", (event) => {
      if (this.#dragged === null) return;
      event.preventDefault();
      event.stopPropagation();
      this.#move(this.#dragged, index);
      this.#dragged = null;
    });
    return item;
  }

  // By a button: whoever goes on, goes on with the same picture, at its end with the button that is left.
  #step(id, place, which) {
    this.#move(id, place);
    const buttons = this.list.children[place].querySelectorAll("button");
    (buttons[which].disabled ? buttons[1 - which] : buttons[which]).focus();
  }

  #move(id, place) {
    const ids = this.ids.filter((other) => other !== id);
    ids.splice(place, 0, id);
    this.#set(ids);
  }

  // One that was uploaded before a reload, or chosen among results. One that is gone (unused ones go after a day) leaves.
  async #find(id) {
    this.#shown.set(id, "");
    try {
      const {url} = await get(`/uploads/${encodeURIComponent(id)}`);
      this.#shown.set(id, url);
      this.changed();
    } catch (error) {
      if (!(error instanceof Refusal) || error.status !== 404) return;
      toast(this.say("references.gone"), "bad");
      this.#set(this.ids.filter((other) => other !== id));
    }
  }

  async #take(files) {
    for (const file of files) {
      if (this.ids.length >= this.limit) {
        toast(this.say("references.too_many", {count: this.limit}), "bad");
        return;
      }
      if (file.size > MAX_BYTES) {
        toast(this.say("references.too_big", {name: file.name}), "bad");
        continue;
      }
      this.info.textContent = this.say("references.uploading", {name: file.name});
      try {
        const image = await upload(file);
        this.#shown.set(image.id, URL.createObjectURL(file));
        this.#set([...this.ids, image.id]);
      } catch (error) {
        toast(sentence(this, error), "bad");
        this.changed();
      }
    }
  }

  #set(ids) {
    this.#change({ids});
  }

  #change(what) {
    this.#touched = true;
    this.tell("nb-change", {...this.value, ...what});
    this.changed();
  }
}

customElements.define("nb-references", References);
