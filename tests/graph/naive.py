"""Graphs and surprise by plain loops."""

import numpy as np


def naive_above(layer, depends):
    """Return the layers that depend on a layer with none between, or the decision."""
    users = [upper for upper in depends if layer in depends[upper]]
    direct = [upper for upper in users if not any(layer in depends[middle] for middle in depends[upper])]
    return direct or ["decision"]


def naive_pairs(words, image, upper, lower):
    """Yield the locations p and q of all pairs of one image, with their words; in effective fields if there are any."""
    below = words.words[lower][image]
    above = words.decisions[image].reshape(1, 1) if upper == "decision" else words.words[upper][image]
    for p in np.ndindex(above.shape):
        for q in np.ndindex(below.shape):
            if upper != "decision":
                fields = words.spec.effective_fields or words.spec.receptive_fields
                field = fields[upper, lower]
                rows, columns = field.window(*p)
                if not (rows.start <= q[0] < rows.stop and columns.start <= q[1] < columns.stop):
                    continue
            yield p, q, int(above[p]), int(below[q])


def n_words_of(words, layer):
    return words.spec.n_outputs if layer == "decision" else words.vocabulary.n_words[layer]


def naive_counts(words, upper, lower):
    counts = np.zeros((n_words_of(words, upper), n_words_of(words, lower)), int)
    for image in range(len(words)):
        for *_, s, t in naive_pairs(words, image, upper, lower):
            counts[s, t] += 1
    return counts


def naive_log_ratio(counts, s, t, smoothing):
    total = sum(sum(row) for row in counts)
    column = sum(row[t] for row in counts)
    if not column:
        return 0.0
    p = column / total
    return np.log2((counts[s][t] + smoothing * p) / (sum(counts[s]) + smoothing) / p)


def naive_walk(fitted, words, depends, start, settings, against=None):
    """Return the selected words by layer with their scores, and the edges with count, log-ratio and frequency.

    `start` is (layer, word) or (layer, word, row, column); `settings` are n_nodes by layer and smoothing.
    """
    n_nodes, smoothing = settings
    selected, edges = {start[0]: [start[1]]}, {}
    scores = {}
    for layer in reversed(words.layers):
        uppers = [upper for upper in naive_above(layer, depends) if upper in selected]
        if layer in selected or not uppers:
            continue
        total, pairs = np.zeros(n_words_of(words, layer)), {}
        for upper in uppers:
            table = naive_counts(fitted, upper, layer).tolist()
            counts = naive_start_counts(words, upper, layer, start)
            for s in selected[upper]:
                for t in range(len(total)):
                    ratio = naive_log_ratio(table, s, t, smoothing)
                    if against is not None and upper == "decision":
                        ratio -= naive_log_ratio(table, against, t, smoothing)
                    total[t] += counts[s, t] * ratio
                    if ratio > 1e-9 and counts[s, t]:
                        pairs[(layer, t), (upper, s)] = counts[s, t], ratio, counts[s, t] / counts[s].sum()
        order = sorted(range(len(total)), key=lambda t: (-round(total[t], 9), t))[: n_nodes[layer]]
        selected[layer] = [t for t in order if total[t] > 1e-9]
        scores[layer] = total
        edges |= {(tail, head): edge for (tail, head), edge in pairs.items() if tail[1] in selected[layer]}
    return selected, scores, edges


def naive_start_counts(words, upper, lower, start):
    """Return the counts of the target: an output is present in every image, a location sees its own field."""
    counts = np.zeros((n_words_of(words, upper), n_words_of(words, lower)), int)
    for image in range(len(words)):
        for p, _, s, t in naive_pairs(words, image, upper, lower):
            if upper == "decision":
                counts[:, t] += 1
            elif upper != start[0] or len(start) == 2 or p == start[2:]:
                counts[s, t] += 1
    return counts


def naive_surprise(fitted, words, depends, smoothing):
    """Return the surprise of every location, by layer."""
    maps = {}
    for layer in words.layers:
        costs = [[[[] for _ in row] for row in image] for image in words.words[layer]]
        for upper in naive_above(layer, depends):
            table = naive_counts(fitted, upper, layer)
            columns = np.maximum(table.sum(0), 1)
            for image in range(len(words)):
                for _, q, s, t in naive_pairs(words, image, upper, layer):
                    ratio = naive_log_ratio(table.tolist(), s, t, smoothing)
                    costs[image][q[0]][q[1]].append(-np.log2(columns[t] / columns.sum()) - ratio)
        maps[layer] = np.array([[[np.mean(x) if x else np.nan for x in row] for row in image] for image in costs])
    return maps
