/* The field of warp.py and everything sampled through it, row by row: plain C, compiled by compiled.py on the user's machine. */

#include <stdint.h>

#define SIMD _Pragma("omp simd")
#define WRITTEN_OUT _Pragma("GCC unroll 8")

enum { WIDEST = 2048, IGNORE = 255 };

typedef struct {
    const void *image;        /* the part that is looked at, uint8 or float */
    int64_t is_float, channels, channel_step, row_step, column_step, height, width;
    double start[2], scale[2]; /* a place of the whole image to one of the part: (place - start) * scale */
    const uint8_t *mask;      /* of the whole image, rows side by side */
    const float *weights;     /* the same, or NULL */
    int64_t mask_height, mask_width;
    double matrix[9];
    const double *nodes;      /* (2, n, m), or NULL */
    int64_t n, m;
} Source;

/* Keys's kernel with a = -0.75, as torch has it. */
static inline float cubic(float t)
{
    const float a = -0.75f;
    float d = t < 0 ? -t : t;
    float near = ((a + 2) * d - (a + 3)) * d * d + 1, far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a;
    return d < 1 ? near : d < 2 ? far : 0;
}

static inline int64_t clamp(int64_t value, int64_t last) { return value < 0 ? 0 : value > last ? last : value; }

/* Adds to rows and columns what the nodes displace there: a sum over nodes, one more on each side that repeats the border. */
static void displace(const Source *s, long count, float *row, float *column)
{
    float y[WIDEST], x[WIDEST], by_row[WIDEST], by_column[WIDEST];
    float rows_scale = (float)(s->n - 1) / (float)s->mask_height, columns_scale = (float)(s->m - 1) / (float)s->mask_width;
    SIMD for (long i = 0; i < count; i++) {
        float v = row[i] * rows_scale, u = column[i] * columns_scale;
        y[i] = v < 0 ? 0 : v > (float)(s->n - 1) ? (float)(s->n - 1) : v;
        x[i] = u < 0 ? 0 : u > (float)(s->m - 1) ? (float)(s->m - 1) : u;
        by_row[i] = by_column[i] = 0;
    }
    for (int64_t p = -1; p <= s->n; p++) {
        float part_row[WIDEST], part_column[WIDEST];
        SIMD for (long i = 0; i < count; i++) part_row[i] = part_column[i] = 0;
        for (int64_t q = -1; q <= s->m; q++) {
            int64_t at = clamp(p, s->n - 1) * s->m + clamp(q, s->m - 1);
            float d_row = (float)s->nodes[at], d_column = (float)s->nodes[s->n * s->m + at];
            SIMD for (long i = 0; i < count; i++) {
                float w = cubic(x[i] - (float)q);
                part_row[i] += w * d_row;
                part_column[i] += w * d_column;
            }
        }
        SIMD for (long i = 0; i < count; i++) {
            float w = cubic(y[i] - (float)p);
            by_row[i] += w * part_row[i];
            by_column[i] += w * part_column[i];
        }
    }
    SIMD for (long i = 0; i < count; i++) {
        row[i] += by_row[i];
        column[i] += by_column[i];
    }
}

/* The same for the 3 x 3 nodes that are usual: loops that are written out keep all sums in registers, nearly three times as fast. */
static void displace_by_nine(const Source *s, long count, float *row, float *column)
{
    enum { N = 3 };
    float rows_scale = (N - 1) / (float)s->mask_height, columns_scale = (N - 1) / (float)s->mask_width;
    float d_row[N * N], d_column[N * N];
    for (int at = 0; at < N * N; at++) {
        d_row[at] = (float)s->nodes[at];
        d_column[at] = (float)s->nodes[N * N + at];
    }
    SIMD for (long i = 0; i < count; i++) {
        float y = row[i] * rows_scale, x = column[i] * columns_scale, by_row = 0, by_column = 0, across[N + 2];
        y = y < 0 ? 0 : y > N - 1 ? N - 1 : y;
        x = x < 0 ? 0 : x > N - 1 ? N - 1 : x;
        WRITTEN_OUT for (int q = -1; q <= N; q++) across[q + 1] = cubic(x - (float)q);
        WRITTEN_OUT for (int p = -1; p <= N; p++) {
            float part_row = 0, part_column = 0, down = cubic(y - (float)p);
            WRITTEN_OUT for (int q = -1; q <= N; q++) {
                int at = (p < 0 ? 0 : p > N - 1 ? N - 1 : p) * N + (q < 0 ? 0 : q > N - 1 ? N - 1 : q);
                part_row += across[q + 1] * d_row[at];
                part_column += across[q + 1] * d_column[at];
            }
            by_row += down * part_row;
            by_column += down * part_column;
        }
        row[i] += by_row;
        column[i] += by_column;
    }
}

/* A place between pixel centres 0..last, mirrored at both ends. */
static inline float mirrored(float at, float last, float per_period)
{
    float period = 2 * last, turn;
    at = at < 0 ? -at : at;
    turn = at - period * __builtin_floorf(at * per_period);
    turn = turn > last ? period - turn : turn;
    return turn < 0 ? 0 : turn;
}

/* Where a row of places lies: the pixel of the mask (-1: outside the image), and the upper left of the four pixels around it. */
typedef struct {
    int32_t nearest[WIDEST], first[WIDEST]; /* offsets */
    float below[WIDEST], after[WIDEST];     /* weights of the lower and the right ones */
    int32_t down, right;                    /* from an upper or left pixel to the other; 0 if there is but one */
} Taps;

static void find(const Source *s, long count, const float *row, const float *column, Taps *t)
{
    float last_row = (float)(s->height - 1), last_column = (float)(s->width - 1);
    float per_row = s->height > 1 ? 0.5f / last_row : 0, per_column = s->width > 1 ? 0.5f / last_column : 0;
    float rows = (float)s->mask_height, columns = (float)s->mask_width;
    float start_row = (float)s->start[0], start_column = (float)s->start[1];
    float scale_row = (float)s->scale[0], scale_column = (float)s->scale[1];
    int32_t most_row = s->height > 1 ? (int32_t)s->height - 2 : 0, most_column = s->width > 1 ? (int32_t)s->width - 2 : 0;
    int32_t mask_width = (int32_t)s->mask_width, row_step = (int32_t)s->row_step, column_step = (int32_t)s->column_step;
    t->down = s->height > 1 ? row_step : 0;
    t->right = s->width > 1 ? column_step : 0;
    SIMD for (long i = 0; i < count; i++) {
        int inside = row[i] >= 0 && row[i] < rows && column[i] >= 0 && column[i] < columns;
        float r = mirrored((row[i] - start_row) * scale_row - 0.5f, last_row, per_row);
        float c = mirrored((column[i] - start_column) * scale_column - 0.5f, last_column, per_column);
        int32_t r_0 = (int32_t)r, c_0 = (int32_t)c;
        r_0 = r_0 > most_row ? most_row : r_0;
        c_0 = c_0 > most_column ? most_column : c_0;
        t->nearest[i] = inside ? (int32_t)row[i] * mask_width + (int32_t)column[i] : -1;
        t->first[i] = r_0 * row_step + c_0 * column_step;
        t->below[i] = r - (float)r_0;
        t->after[i] = c - (float)c_0;
    }
}

#define BILINEAR(Z, P, Q, X) /* between Z[P], Z[P + X] and below them Z[Q], Z[Q + X] */                   \
    float upper = (float)Z[P] + t->after[i] * ((float)Z[(P) + (X)] - (float)Z[P]);                        \
    float lower = (float)Z[Q] + t->after[i] * ((float)Z[(Q) + (X)] - (float)Z[Q]);                        \
    to[i] = upper + t->below[i] * (lower - upper);

static void mix_floats(const float *z, const Taps *t, long count, float *to)
{
    for (long i = 0; i < count; i++) {
        int32_t p = t->first[i], q = p + t->down;
        BILINEAR(z, p, q, t->right)
    }
}

/* Neighbours of a row that lie side by side are read as one number of two bytes, and computed with many at a time. */
static void mix_bytes(const uint8_t *z, const Taps *t, long count, float *to)
{
    if (t->right != 1) {
        for (long i = 0; i < count; i++) {
            int32_t p = t->first[i], q = p + t->down;
            BILINEAR(z, p, q, t->right)
        }
        return;
    }
    uint8_t above[2 * WIDEST], under[2 * WIDEST];
    for (long i = 0; i < count; i++) {
        __builtin_memcpy(above + 2 * i, z + t->first[i], 2);
        __builtin_memcpy(under + 2 * i, z + t->first[i] + t->down, 2);
    }
    SIMD for (long i = 0; i < count; i++) {
        float a = above[2 * i], b = above[2 * i + 1], c = under[2 * i], d = under[2 * i + 1];
        float upper = a + t->after[i] * (b - a), lower = c + t->after[i] * (d - c);
        to[i] = upper + t->below[i] * (lower - upper);
    }
}

/* Rows `from` to `to` of a result of `width` columns: image (channels, height, width) float, mask, weights. */
void warp_rows(const Source *s, int64_t from, int64_t to_row, int64_t height, int64_t width, float *image, uint8_t *mask,
               float *weights)
{
    float row[WIDEST], column[WIDEST];
    Taps t;
    const double *h = s->matrix;
    Source whole = *s; /* the weights are sampled in the whole image */
    whole.height = s->mask_height;
    whole.width = s->mask_width;
    whole.start[0] = whole.start[1] = 0;
    whole.scale[0] = whole.scale[1] = 1;
    whole.row_step = s->mask_width;
    whole.column_step = 1;
    for (int64_t y = from; y < to_row; y++)
        for (int64_t first = 0; first < width; first += WIDEST) {
            long count = width - first < WIDEST ? (long)(width - first) : WIDEST;
            int64_t out = y * width + first;
            SIMD for (long i = 0; i < count; i++) {
                double v = (double)y + 0.5, u = (double)(first + i) + 0.5, over = h[6] * v + h[7] * u + h[8];
                row[i] = (float)((h[0] * v + h[1] * u + h[2]) / over);
                column[i] = (float)((h[3] * v + h[4] * u + h[5]) / over);
            }
            if (s->nodes && s->n == 3 && s->m == 3) displace_by_nine(s, count, row, column);
            else if (s->nodes) displace(s, count, row, column);
            find(s, count, row, column, &t);
            for (long i = 0; i < count; i++) mask[out + i] = t.nearest[i] < 0 ? IGNORE : s->mask[t.nearest[i]];
            for (int64_t k = 0; k < s->channels; k++) {
                float *to = image + k * height * width + out;
                if (s->is_float) mix_floats((const float *)s->image + k * s->channel_step, &t, count, to);
                else mix_bytes((const uint8_t *)s->image + k * s->channel_step, &t, count, to);
            }
            if (s->weights) {
                float *to = weights + out;
                find(&whole, count, row, column, &t);
                mix_floats(s->weights, &t, count, to);
                for (long i = 0; i < count; i++) to[i] = t.nearest[i] < 0 ? 0 : to[i];
            }
        }
}
