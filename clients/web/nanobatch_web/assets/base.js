// What all elements share: words, nodes, calls to our own routes.
export const MOUNT = "/nano-banana";
const OWN = `${MOUNT}/nb`;

// Whoever is signed out, by themselves or by a token's end, is led to where they can sign in, whatever asked.
const asked = window.fetch.bind(window);
window.fetch = async (...what) => {
  const answer = await asked(...what);
  const own = new URL(answer.url || location.href, location.href);
  if (answer.status === 401 && own.origin === location.origin && own.pathname.startsWith(MOUNT)) {
    location.assign(`${MOUNT}/login?after=${encodeURIComponent(location.pathname + location.search)}`);
  }
  return answer;
};

export function fill(text, facts = {}) {
  return text.replace(/\{(\w+)\}/g, (_, name) => String(facts[name] ?? ""));
}

// node("p", {class: "x"}, "text", child): text children become text nodes.
export function node(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

export class Refusal extends Error {
  constructor(error, status) {
    super(error?.message ?? "");
    this.code = error?.code ?? "";
    this.fields = error?.fields ?? [];
    this.status = status;
  }
}

const LIMIT = 20_000; // the page's process itself waits 15 s for the gateway
export const POLL_LIMIT = 10_000; // what is asked for again and again is given up sooner

async function body(answer) {
  let told = null;
  try {
    told = await answer.json();
  } catch (error) {
    if (answer.ok) throw error; // it broke off; of a proxy's own page the status says enough
  }
  if (!answer.ok || !told?.success) throw new Refusal(told?.error, answer.status);
  return told.data;
}

export async function post(path, data = {}) {
  return body(await fetch(`${OWN}${path}`, {
    method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(data), signal: AbortSignal.timeout(LIMIT),
  }));
}

export async function upload(file) {
  return body(await fetch(`${OWN}/uploads`, {method: "POST", body: file}));
}

export async function get(path, limit = LIMIT) {
  return body(await fetch(`${OWN}${path}`, {signal: AbortSignal.timeout(limit)}));
}

const TEXTS_AGAIN = 2000;
let words = null;

// Nothing can be said without them, so they are asked for until they are there.
async function askForTexts() {
  for (;;) {
    try {
      const told = await get("/texts", POLL_LIMIT);
      document.documentElement.lang = told.language;
      return told.texts;
    } catch (error) {
      if (error.status === 401) return new Promise(() => {}); // the page is left for the login
      await new Promise((done) => setTimeout(done, TEXTS_AGAIN));
    }
  }
}

export function texts() {
  return words ??= askForTexts();
}

export function dollars(micros) {
  const text = (micros / 1e6).toFixed(6).replace(/0+$/, "");
  const [whole, cents = ""] = text.split(".");
  return `$${whole}.${cents.padEnd(2, "0")}`;
}

// "3 of 4 done, 1 failed"
export function outOf(element, stats) {
  return element.say("history.counts", {
    done: stats.completed, of: element.counted("run.done", stats.total), failed: element.counted("run.failed", stats.failed),
  });
}

// A picture's name among those of its run: "3", and "3 · 2" for the second one of the same prompt.
export function nameOf(result) {
  return result.variation ? `${result.index + 1} · ${result.variation + 1}` : String(result.index + 1);
}

// Whether nobody knows what became of what was asked for: it did not arrive, or its answer did not.
export function unanswered(error) {
  return !(error instanceof Refusal) || error.status >= 500;
}

// What a person should read about a failure: the server's own words where it has some, those about fields first.
export function sentence(element, error) {
  if (!(error instanceof Refusal) || error.status === 503) return element.say("error.gateway");
  return error.fields.map((field) => field.message).join(" ") || error.message || element.say("error.gateway");
}

export function duration(seconds) {
  const whole = Math.round(seconds);
  if (whole < 60) return `${Math.max(1, whole)} s`;
  const minutes = Math.round(whole / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

// The time of day, with the day where that is not today.
export function clock(iso) {
  const at = new Date(iso);
  const time = {hour: "2-digit", minute: "2-digit", second: "2-digit"};
  return at.toDateString() === new Date().toDateString() ? at.toLocaleTimeString([], time)
    : at.toLocaleString([], {weekday: "short", day: "numeric", month: "short", hour: "2-digit", minute: "2-digit"});
}

export function moment(iso) {
  return new Date(iso).toLocaleString([], {dateStyle: "medium", timeStyle: "short"});
}

// Says something in its place. What is said already is not said again: screen readers would.
export function write(place, text) {
  if (place.textContent !== text) place.textContent = text;
}

// Makes `items` the children of `list`. Only what is not in its place is moved: focus, and pictures on their way, stay.
export function arrange(list, items) {
  const wanted = new Set(items);
  for (const item of [...list.children]) if (!wanted.has(item)) item.remove();
  items.forEach((item, place) => {
    if (list.children[place] !== item) list.insertBefore(item, list.children[place] ?? null);
  });
}

// Toasts of our own: text, said aloud to screen readers, gone after a while.
export function toast(sentence, kind = "info") {
  let place = document.querySelector(".nb-toasts");
  if (!place) {
    place = node("div", {class: "nb-toasts", role: "status", "aria-live": "polite"});
    document.body.append(place);
  }
  const shown = node("div", {class: `nb-toast nb-${kind}`}, sentence);
  place.append(shown);
  while (place.children.length > 4) place.firstElementChild.remove();
  setTimeout(() => shown.remove(), 6000);
}

// An element that redraws when its value changes, once the words are there.
export class Element extends HTMLElement {
  #value = {};

  get value() {
    return this.#value;
  }

  set value(value) {
    this.#value = value ?? {};
    if (this.words) this.changed();
  }

  async connectedCallback() {
    // A value that was given before this class was here is a plain property, which would hide the accessor for good.
    if (Object.hasOwn(this, "value")) {
      const {value} = this;
      delete this.value;
      this.value = value;
    }
    this.words ??= await texts();
    if (!this.isConnected || this.started) return;
    this.started = true;
    this.start();
    this.changed();
  }

  disconnectedCallback() {
    this.started = false;
    this.stop();
  }

  say(key, facts) {
    return fill(this.words[key] ?? key, facts);
  }

  // The word for so many: French says "1 finie" and "2 finies".
  word(key, number) {
    const form = new Intl.PluralRules(document.documentElement.lang || "en").select(number);
    return this.words[`${key}.${form}`] ?? this.say(key);
  }

  counted(key, number) {
    return `${number} ${this.word(key, number)}`;
  }

  tell(event, value) {
    this.#value = value;
    this.dispatchEvent(new CustomEvent(event, {detail: value}));
  }

  start() {}
  stop() {}
  changed() {}
}
