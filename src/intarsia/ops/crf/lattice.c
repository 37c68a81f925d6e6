/* The permutohedral lattice of an image: every pixel's d + 1 corners and their weights, and every vertex's neighbours.
   Plain C, compiled by compiled.py on the user's machine; lattice.py says what is computed, with the same integers.

   An image is cut into strips of rows, one a thread. A strip numbers its own vertices from 1; their rows follow those of the
   strips before, and row 0 is empty. A vertex that an earlier strip has too is an extra row: the first one is its head. */

#include <stdint.h>
#include <stdlib.h>

#define SIMD _Pragma("omp simd")
#define EACH_LANE for (int l = 0; l < LANES; l++)
#define INLINE static inline __attribute__((always_inline))

enum { LANES = 16, MOST = 33, FIRST = 1 << 12 };

typedef struct {
    const float *image;    /* (channels, height, width) */
    int64_t height, width, channels;
    const double *factor;  /* (channels + 2): column, row and channels to lattice units, 2^bits each */
    const int64_t *step;   /* (channels + 3): a vertex's key is the sum of coordinate times step; the last step is 0 */
    int64_t bits;
} Frame;

typedef struct {
    uint64_t key;
    int64_t row; /* 0: empty */
} Slot;

typedef struct {
    Slot *slot;
    uint64_t *key;        /* of the vertices in the order of their numbers */
    int64_t count, room;  /* vertices; slots, a power of two, at most half of them filled */
} Table;

INLINE uint64_t place(const Table *table, uint64_t key)
{
    uint64_t mask = (uint64_t)table->room - 1, at = (key * 0x9E3779B97F4A7C15u) >> 20 & mask;
    while (table->slot[at].row && table->slot[at].key != key) at = (at + 1) & mask;
    return at;
}

static int grow(Table *table)
{
    Table wide = {NULL, table->key, table->count, table->room ? 2 * table->room : FIRST};
    wide.slot = calloc((size_t)wide.room, sizeof(Slot));
    if (!wide.slot) return -1;
    for (int64_t i = 0; i < table->room; i++)
        if (table->slot[i].row) wide.slot[place(&wide, table->slot[i].key)] = table->slot[i];
    free(table->slot);
    *table = wide;
    uint64_t *key = realloc(table->key, (size_t)table->room / 2 * sizeof(uint64_t));
    if (!key) return -1;
    table->key = key;
    return 0;
}

/* Corner and weight of the pixels x..x+15 of a row: key[k], and weight[k] in 2^-bits. */
INLINE void embed(const Frame *frame, int64_t y, int64_t x, int64_t size, const int d, int32_t weight[][LANES],
                  uint64_t key[][LANES])
{
    int32_t at[MOST][LANES], nearest[MOST][LANES], rank[MOST][LANES], sorted[MOST][LANES], sum[LANES] = {0}, off[LANES] = {0};
    uint64_t turn[MOST][LANES], all = 0;
    const int32_t bits = (int32_t)frame->bits, unit = 1 << bits, half = unit / 2;
    const uint64_t *step = (const uint64_t *)frame->step;
    for (int j = d; j > 0; j--) {
        const double factor = frame->factor[j - 1];
        int32_t feature[LANES];
        if (j > 2) {
            const float *value = frame->image + ((j - 3) * frame->height + y) * frame->width + x;
            float given[LANES];
            EACH_LANE given[l] = l < size ? value[l] : 0;
            SIMD EACH_LANE feature[l] = (int32_t)__builtin_rint((double)given[l] * factor);
        } else {
            SIMD EACH_LANE feature[l] = (int32_t)__builtin_rint((double)(j == 1 ? (int32_t)x + l : (int32_t)y) * factor);
        }
        SIMD EACH_LANE at[j][l] = sum[l] - j * feature[l];
        SIMD EACH_LANE sum[l] += feature[l];
        all += step[j - 1];
    }
    SIMD EACH_LANE at[0][l] = sum[l];
    for (int j = 0; j <= d; j++)
        SIMD EACH_LANE {
            nearest[j][l] = (at[j][l] + half) >> bits;
            at[j][l] -= nearest[j][l] * unit;
            off[l] += nearest[j][l];
        }
    for (int j = 0; j <= d; j++) SIMD EACH_LANE rank[j][l] = off[l];
    for (int i = 0; i < d; i++)
        for (int j = i + 1; j <= d; j++)
            SIMD EACH_LANE {
                int32_t less = at[i][l] < at[j][l];
                rank[i][l] += less;
                rank[j][l] += 1 - less;
            }
    for (int k = 0; k <= d; k++) SIMD EACH_LANE sorted[k][l] = 0;
    for (int k = 0; k <= d; k++) SIMD EACH_LANE turn[k][l] = 0;
    SIMD EACH_LANE key[0][l] = 0;
    for (int j = 0; j <= d; j++) {
        const uint64_t whole = (uint64_t)(d + 1) * step[j];
        SIMD EACH_LANE {
            int32_t up = (rank[j][l] < 0) - (rank[j][l] > d);
            rank[j][l] += up * (d + 1);
            nearest[j][l] += up;
            at[j][l] -= up * unit;
        }
        SIMD EACH_LANE key[0][l] += (uint64_t)(int64_t)nearest[j][l] * whole;
        for (int k = 0; k <= d; k++) SIMD EACH_LANE sorted[k][l] += rank[j][l] == k ? at[j][l] : 0;
        for (int k = 0; k <= d; k++) SIMD EACH_LANE turn[k][l] += rank[j][l] == k ? whole : 0;
    }
    SIMD EACH_LANE weight[0][l] = unit + sorted[d][l] - sorted[0][l];
    for (int k = 1; k <= d; k++) SIMD EACH_LANE weight[k][l] = sorted[d - k][l] - sorted[d - k + 1][l];
    for (int k = 1; k <= d; k++) SIMD EACH_LANE key[k][l] = key[k - 1][l] + all - turn[d - k + 1][l];
}

INLINE int strip(const Frame *frame, int64_t first, int64_t last, int32_t *corner, float *weight, Table *table, const int d)
{
    int32_t share[MOST][LANES];
    uint64_t key[MOST][LANES], before[MOST];
    int32_t number[MOST] = {0};
    const float unit = 1.0f / (float)(1 << frame->bits);
    corner += first * frame->width * (d + 1);
    weight += first * frame->width * (d + 1);
    for (int64_t y = first; y < last; y++)
        for (int64_t x = 0; x < frame->width; x += LANES) {
            int64_t size = frame->width - x < LANES ? frame->width - x : LANES;
            embed(frame, y, x, size, d, share, key);
            for (int64_t l = 0; l < size; l++, corner += d + 1, weight += d + 1)
                for (int k = 0; k <= d; k++) {
                    weight[k] = (float)share[k][l] * unit;
                    if (!number[k] || before[k] != key[k][l]) { /* else the pixel before has the same */
                        if (2 * (table->count + 1) > table->room && grow(table)) return -1;
                        Slot *slot = table->slot + place(table, key[k][l]);
                        if (!slot->row) {
                            slot->key = table->key[table->count] = key[k][l];
                            slot->row = ++table->count;
                        }
                        before[k] = key[k][l];
                        number[k] = (int32_t)slot->row;
                    }
                    corner[k] = number[k];
                }
        }
    return 0;
}

/* Corners (pixels, d + 1) and weights of the image rows first..last-1, and the table of their vertices; -1: no memory. */
int32_t lattice_strip(const Frame *frame, int64_t first, int64_t last, int32_t *corner, float *weight, Table *table)
{
    switch (frame->channels) {
    case 1: return strip(frame, first, last, corner, weight, table, 3);
    case 3: return strip(frame, first, last, corner, weight, table, 5);
    default: return strip(frame, first, last, corner, weight, table, (int)frame->channels + 2);
    }
}

/* Make the first table that of all strips; extra gets (row, head) pairs. Gives their number; -1: no memory. */
int64_t lattice_merge(Table *table, int64_t strips, int32_t *extra)
{
    int64_t base = table->count, filled = table->count, extras = 0;
    for (int64_t t = 1; t < strips; t++) {
        for (int64_t i = 0; i < table[t].count; i++) {
            if (2 * (filled + 1) > table->room && grow(table)) return -1;
            Slot *slot = table->slot + place(table, table[t].key[i]);
            if (slot->row) {
                extra[2 * extras] = (int32_t)(base + i + 1);
                extra[2 * extras++ + 1] = (int32_t)slot->row;
            } else {
                slot->key = table[t].key[i];
                slot->row = base + i + 1;
                filled++;
            }
        }
        base += table[t].count;
    }
    return extras;
}

/* The neighbours (d + 1, rows, 2) of the vertices first..last-1 of a strip that has `base` rows before it. */
void lattice_neighbours(const Frame *frame, const Table *all, const Table *own, int64_t base, int64_t first, int64_t last,
                        int64_t rows, int32_t *neighbour)
{
    int d = (int)frame->channels + 2;
    const uint64_t *step = (const uint64_t *)frame->step;
    uint64_t sum = 0;
    for (int j = 0; j < d; j++) sum += step[j];
    for (int64_t i = first; i < last; i++) {
        int64_t row = base + i + 1;
        if (base && all->slot[place(all, own->key[i])].row != row) continue; /* the head has them */
        for (int j = 0; j <= d; j++) {
            int64_t next = all->slot[place(all, own->key[i] + sum - (uint64_t)(d + 1) * step[j])].row;
            if (next) {
                neighbour[2 * (j * rows + row)] = (int32_t)next;
                neighbour[2 * (j * rows + next) + 1] = (int32_t)row;
            }
        }
    }
}

void lattice_free(Table *table, int64_t strips)
{
    for (int64_t t = 0; t < strips; t++) {
        free(table[t].slot);
        free(table[t].key);
    }
}
