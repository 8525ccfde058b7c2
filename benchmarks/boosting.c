// SPDX-License-Identifier: Apache-2.0
// Gradient boosting of regression trees for two classes, as scikit-learn's, fast on few samples.
// Log loss, initial log odds, splits by squared error, one Newton step a leaf. Features arrive as
// ranks of their distinct values; thresholds lie half-way between values present in the node.
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_FEATURES = 16, MAX_BINS = 1024, FEW = 32 };

typedef struct {
    int n, n_features, max_bins;
    const uint16_t *rank;  // n_features x n
    const int *bins;       // how many distinct values each feature takes
    const double *value;   // n_features x max_bins
    const double *residual, *weight;
    int max_depth, min_split, min_leaf, n_tried;
    uint64_t state;
} Fit;

typedef struct {
    int feature, left, right;
    double threshold, value;
} Node;

typedef struct {
    int feature, bin, next_bin;
    double gain;
} Cut;

static uint32_t draw(uint64_t *state, uint32_t below) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return (uint32_t)((*state >> 33) % below);
}

// Consider every threshold of one feature; returns whether the feature takes two values here.
// Few members are sorted, many are counted by bin.
static int scan(const Fit *f, const int *members, int n, int feature, Cut *best) {
    static int bin[MAX_BINS], count[MAX_BINS];
    static double sum[MAX_BINS];
    const uint16_t *rank = f->rank + (size_t)feature * (size_t)f->n;
    const int n_bins = f->bins[feature];
    int n_distinct = 0;
    double total = 0;
    if (n <= FEW && n_bins > FEW) {
        for (int i = 0; i < n; i++) {
            const int b = rank[members[i]];
            const double r = f->residual[members[i]];
            int j = n_distinct;
            while (j > 0 && bin[j - 1] > b) j--;
            if (j == 0 || bin[j - 1] != b) {
                for (int m = n_distinct++; m > j; m--) {
                    bin[m] = bin[m - 1], count[m] = count[m - 1], sum[m] = sum[m - 1];
                }
                bin[j] = b, count[j] = 0, sum[j++] = 0;
            }
            count[j - 1]++;
            sum[j - 1] += r;
            total += r;
        }
    } else {
        for (int b = 0; b < n_bins; b++) count[b] = 0, sum[b] = 0;
        for (int i = 0; i < n; i++) {
            const int b = rank[members[i]];
            count[b]++;
            sum[b] += f->residual[members[i]];
        }
        for (int b = 0; b < n_bins; b++) {
            if (!count[b]) continue;
            total += sum[b];
            bin[n_distinct] = b, count[n_distinct] = count[b], sum[n_distinct++] = sum[b];
        }
    }
    if (n_distinct < 2) return 0;
    int left = 0;
    double left_sum = 0;
    for (int j = 0; j + 1 < n_distinct; j++) {
        left += count[j];
        left_sum += sum[j];
        if (left < f->min_leaf || n - left < f->min_leaf) continue;
        const double right_sum = total - left_sum;
        const double gain = left_sum * left_sum / left + right_sum * right_sum / (n - left);
        if (gain > best->gain) *best = (Cut){feature, bin[j], bin[j + 1], gain};
    }
    return 1;
}

static int grow(Fit *f, int *members, int n, int depth, Node *nodes, int *n_nodes, int *leaf_of) {
    const int id = (*n_nodes)++;
    double total = 0, squares = 0, curvature = 0;
    for (int i = 0; i < n; i++) {
        total += f->residual[members[i]];
        squares += f->residual[members[i]] * f->residual[members[i]];
        curvature += f->weight[members[i]];
    }
    Cut best = {-1, 0, 0, -INFINITY};
    const int splits = depth < f->max_depth && n >= f->min_split && n >= 2 * f->min_leaf &&
                       squares / n - total / n * (total / n) > 2.2e-16;
    if (splits) {
        int order[MAX_FEATURES], tried = 0;
        for (int j = 0; j < f->n_features; j++) order[j] = j;
        for (int j = f->n_features; j > 0 && tried < f->n_tried; j--) {
            const int pick = (int)draw(&f->state, (uint32_t)j), chosen = order[pick];
            order[pick] = order[j - 1];
            tried += scan(f, members, n, chosen, &best);
        }
    }
    nodes[id] = (Node){best.feature, 0, 0, 0, curvature < 1e-150 ? 0 : total / curvature};
    if (best.feature < 0) {
        for (int i = 0; i < n; i++) leaf_of[members[i]] = id;
        return id;
    }
    const double *value = f->value + best.feature * f->max_bins;
    nodes[id].threshold = (value[best.bin] + value[best.next_bin]) / 2;
    int split = 0;
    for (int i = 0; i < n; i++) {
        if (f->rank[(size_t)best.feature * (size_t)f->n + (size_t)members[i]] <= best.bin) {
            const int moved = members[i];
            members[i] = members[split];
            members[split++] = moved;
        }
    }
    nodes[id].left = grow(f, members, split, depth + 1, nodes, n_nodes, leaf_of);
    nodes[id].right = grow(f, members + split, n - split, depth + 1, nodes, n_nodes, leaf_of);
    return id;
}

// Returns how many of the test samples are classified rightly after the last stage.
int boosted_hits(int n, int n_features, int max_bins, const uint16_t *rank, const int *bins,
                 const double *value, const int *label, int n_test, const double *test, const int *test_label,
                 double rate, int n_stages, const int *tree, uint64_t seed) {
    double *raw = malloc(sizeof(double) * (size_t)n), *residual = malloc(sizeof(double) * (size_t)n);
    double *weight = malloc(sizeof(double) * (size_t)n);
    double *raw_test = malloc(sizeof(double) * (size_t)n_test);
    int *members = malloc(sizeof(int) * (size_t)n), *leaf_of = malloc(sizeof(int) * (size_t)n);
    Node *nodes = malloc(sizeof(Node) * (size_t)(2 * n));
    Fit f = {.n = n, .n_features = n_features, .max_bins = max_bins, .rank = rank, .bins = bins};
    f.value = value, f.residual = residual, f.weight = weight;
    f.max_depth = tree[0], f.min_split = tree[1], f.min_leaf = tree[2], f.n_tried = tree[3];
    f.state = seed * 2654435761u + 88172645463325252u;
    double positive = 0;
    for (int i = 0; i < n; i++) positive += label[i];
    for (int i = 0; i < n; i++) raw[i] = log(positive / (n - positive));
    for (int i = 0; i < n_test; i++) raw_test[i] = raw[0];
    for (int stage = 0; stage < n_stages; stage++) {
        int n_nodes = 0;
        for (int i = 0; i < n; i++) {
            const double p = 1 / (1 + exp(-raw[i]));
            residual[i] = label[i] - p;
            weight[i] = p * (1 - p);
            members[i] = i;
        }
        grow(&f, members, n, 0, nodes, &n_nodes, leaf_of);
        for (int i = 0; i < n; i++) raw[i] += rate * nodes[leaf_of[i]].value;
        for (int i = 0; i < n_test; i++) {
            const Node *node = nodes;
            while (node->feature >= 0) {
                const double x = test[i * n_features + node->feature];
                node = nodes + (x <= node->threshold ? node->left : node->right);
            }
            raw_test[i] += rate * node->value;
        }
    }
    int hits = 0;
    for (int i = 0; i < n_test; i++) hits += (raw_test[i] > 0) == test_label[i];
    free(raw), free(residual), free(weight), free(raw_test), free(members), free(leaf_of), free(nodes);
    return hits;
}
