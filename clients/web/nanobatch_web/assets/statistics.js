// The statistics page: what was made, what it cost, how calls ended, how long they took.
import {dollars, Element, get, node, sentence, unanswered, write} from "./base.js";
import {bar, columns} from "./chart.js";

const RANGES = [7, 30, 90];
const MOST_MODELS = 6;
const AGAIN = 2000;

class Statistics extends Element {
  #days = 30;
  #everybody = false;
  #asked = 0;
  #offered = false;
  #timer = null;

  start() {
    const ranges = this.#choice("range", "statistics.range", RANGES.map((count) =>
      [this.say("statistics.days", {count}), count === this.#days, () => { this.#days = count; }]));
    this.#offered = false;
    this.whose = node("div", {});
    this.status = node("p", {role: "status"});
    this.body = node("div", {class: "nb-statistics"});
    this.replaceChildren(
      ranges, this.whose, this.status, this.body);
    this.#load();
  }

  stop() {
    clearTimeout(this.#timer);
    this.#asked += 1; // what is on its way comes too late
  }

  // Where people sign in, an admin may see what all of them have used.
  async #offerEverybody() {
    if (this.#offered) return;
    this.#offered = true;
    try {
      const me = await get("/me");
      if (!me.signed_in || me.role !== "ADMIN") return;
      this.whose.replaceChildren(this.#choice("whose", "statistics.whose", [
        [this.say("statistics.mine"), true, () => { this.#everybody = false; }],
        [this.say("statistics.everybody"), false, () => { this.#everybody = true; }],
      ]));
    } catch {
      this.#offered = false; // the next figures ask once more
    }
  }

  // Radio buttons of [words, whether chosen, what choosing does]; the figures are asked for anew.
  #choice(name, legend, ways) {
    const choices = ways.map(([words, checked, choose]) => node("label", {class: "nb-days"},
      node("input", {type: "radio", name: `nb-${name}`, checked, onchange: () => { choose(); this.#load(); }}), words));
    return node("fieldset", {class: "nb-row nb-range"}, node("legend", {}, this.say(legend)), ...choices);
  }

  #load() {
    const asked = ++this.#asked;
    clearTimeout(this.#timer);
    write(this.status, this.say("statistics.loading"));
    this.#ask(asked);
  }

  async #ask(asked) {
    let found = null, failure = null;
    try {
      found = await get(`/usage?days=${this.#days}&everybody=${this.#everybody}`);
    } catch (error) {
      failure = error;
    }
    if (asked !== this.#asked) return;
    if (failure) {
      this.#fail(failure, asked);
      return;
    }
    write(this.status, this.say(found.totals.attempts ? "statistics.note" : "statistics.none"));
    this.body.replaceChildren(...(found.totals.attempts ? this.#charts(found) : []));
    this.#offerEverybody();
  }

  // Who cannot be reached is asked again; who refuses, when somebody says so.
  #fail(error, asked) {
    if (unanswered(error)) {
      write(this.status, this.say("reconnect.waiting"));
      this.#timer = setTimeout(() => this.#ask(asked), AGAIN);
      return;
    }
    this.status.replaceChildren(sentence(this, error), " ", node("button", {class: "nb-button", type: "button", onclick: () => this.#load()},
      this.say("statistics.again")));
  }

  #charts(found) {
    const models = found.by_model.map((row) => row.model)
      .sort((one, other) => rank(found, other) - rank(found, one) || one.localeCompare(other));
    return [
      this.#totals(found.totals),
      this.#byDay(found, models, "pictures", 1, String),
      this.#byDay(found, models, "cost", 10_000, dollars),
      this.#byOutcome(found),
      this.#byModel(found, models),
    ];
  }

  #totals(totals) {
    const fact = (figure, key) => node("div", {}, node("dd", {}, figure), node("dt", {}, this.say(key)));
    return node("dl", {class: "nb-outcome nb-totals"},
      fact(String(totals.pictures), "statistics.pictures"), fact(String(totals.attempts), "statistics.calls"),
      fact(dollars(totals.cost), "statistics.cost"), fact(dollars(totals.uncertain), "statistics.uncertain"),
      fact(percent(totals.pictures, totals.attempts), "statistics.success"));
  }

  #byDay(found, models, what, least, show) {
    const title = this.say(`statistics.by_day.${what}`);
    const names = models.length > MOST_MODELS ? [...models.slice(0, MOST_MODELS - 1), ""] : models;
    const place = new Map(found.days.map((day, index) => [day, index]));
    const series = names.map((model) => ({
      name: model || this.say("statistics.others"), values: found.days.map(() => 0),
    }));
    for (const row of found.by_day) {
      const index = names.indexOf(row.model);
      series[index < 0 ? names.length - 1 : index].values[place.get(row.day)] += row[what];
    }
    const sums = found.days.map((_, day) => series.reduce((sum, one) => sum + one.values[day], 0));
    const busy = new Set(found.by_day.map((row) => row.day));
    const rows = found.days.map((day, index) => [day, ...series.map((one) => show(one.values[index])), show(sums[index])])
      .filter(([day]) => busy.has(day)).reverse();
    const label = this.say("statistics.chart", {title, most: show(Math.max(...sums))});
    return this.#section(`by-day-${what}`, title,
      columns({columns: found.days, series, show, least, label, width: this.clientWidth}),
      node("ul", {class: "nb-legend"}, ...series.map((one, index) =>
        node("li", {}, node("span", {class: `nb-key nb-color-${index}`, "aria-hidden": "true"}), one.name))),
      this.#table(title, [this.say("statistics.day"), ...series.map((one) => one.name), this.say("statistics.total")], rows));
  }

  #byOutcome(found) {
    const title = this.say("statistics.by_outcome");
    const rows = [...found.by_outcome].sort((one, other) => other.attempts - one.attempts);
    const most = found.totals.attempts;
    return this.#section("by-outcome", title, this.#table(title,
      [this.say("statistics.outcome"), "", this.say("statistics.calls"), this.say("statistics.share")],
      rows.map((row) => [
        this.words[`outcome.${row.outcome}`] ?? row.outcome, bar(row.attempts, most, row.outcome === "COMPLETED" ? 0 : 1),
        String(row.attempts), percent(row.attempts, most),
      ])));
  }

  #byModel(found, models) {
    const title = this.say("statistics.by_model");
    const shares = [50, 90, 99];
    const timed = models.map((model) => found.by_model.find((row) => row.model === model)).filter((row) => row.p50 !== null);
    const most = Math.max(...timed.map((row) => row.p99), 0);
    const time = (row, share) => node("span", {class: "nb-measure"},
      bar(row[`p${share}`], most, shares.indexOf(share)), seconds(row[`p${share}`]));
    return this.#section("by-model", title, this.#table(title,
      [this.say("statistics.model"), ...shares.map((share) => this.say("statistics.percentile", {share}))],
      timed.map((row) => [row.model, ...shares.map((share) => time(row, share))])));
  }

  #section(name, title, ...parts) {
    return node("section", {class: "nb-figure", "data-chart": name}, node("h2", {}, title), ...parts);
  }

  #table(title, head, rows) {
    return node("div", {class: "nb-scroll", tabindex: 0, role: "region", "aria-label": this.say("statistics.figures", {title})},
      node("table", {class: "nb-table"},
        node("thead", {}, node("tr", {}, ...head.map((text) => node(text ? "th" : "td", text ? {scope: "col"} : {}, text)))),
        node("tbody", {}, ...rows.map(([first, ...cells]) =>
          node("tr", {}, node("th", {scope: "row"}, first), ...cells.map((cell) => node("td", {}, cell)))))));
  }
}

function rank(found, model) {
  return found.by_model.find((row) => row.model === model).pictures;
}

function percent(part, whole) {
  return whole ? `${Math.floor(part / whole * 1000) / 10} %` : "–";
}

function seconds(value) {
  return `${value.toFixed(value < 10 ? 2 : 1)} s`;
}

customElements.define("nb-statistics", Statistics);
