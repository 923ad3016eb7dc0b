// Which results are shown, and in which order. Pure.
const inOrder = (one, other) => one.index - other.index || one.variation - other.variation;

export const FILTERS = {
  all: {shows: () => true, counts: (stats) => stats.total},
  success: {shows: (result) => result.state === "COMPLETED", counts: (stats) => stats.completed},
  failed: {shows: (result) => result.state === "FAILED", counts: (stats) => stats.failed},
};

export const ORDERS = {
  prompt: inOrder,
  newest: (one, other) => other.revision - one.revision,
  slowest: (one, other) => (other.ms ?? -1) - (one.ms ?? -1) || inOrder(one, other),
  cost: (one, other) => other.cost - one.cost || inOrder(one, other),
};

// A text as it is searched in and for: without accents, capitals and what stands around it.
export const plain = (text) => text.normalize("NFKD").replace(/\p{Mn}/gu, "").toLowerCase().trim();
