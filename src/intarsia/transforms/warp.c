/* The field of warp.py and everything sampled through it, row by row: plain C, compiled by compiled.py on the user's machine. */

#include <stdint.h>

#define SIMD _Pragma("omp simd")

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

/* A place between pixel centres 0..last, mirrored at both ends. */
static inline float mirrored(float at, float last)
{
    float period = 2 * last, turn;
    if (last <= 0) return 0;
    at = at < 0 ? -at : at;
    turn = at - period * __builtin_floorf(at / period);
    return turn > last ? period - turn : turn;
}

/* Where a row of places lies: the pixel of the mask (-1: outside the image), and the four pixels of the part around it. */
typedef struct {
    int32_t nearest[WIDEST], first[WIDEST], down[WIDEST], right[WIDEST]; /* offsets; down and right from the first */
    float below[WIDEST], after[WIDEST];                                  /* weights of the lower and the right ones */
} Taps;

static void find(const Source *s, long count, const float *row, const float *column, Taps *t)
{
    float last_row = (float)(s->height - 1), last_column = (float)(s->width - 1);
    float rows = (float)s->mask_height, columns = (float)s->mask_width;
    float start_row = (float)s->start[0], start_column = (float)s->start[1];
    float scale_row = (float)s->scale[0], scale_column = (float)s->scale[1];
    int32_t mask_width = (int32_t)s->mask_width, row_step = (int32_t)s->row_step, column_step = (int32_t)s->column_step;
    SIMD for (long i = 0; i < count; i++) {
        int inside = row[i] >= 0 && row[i] < rows && column[i] >= 0 && column[i] < columns;
        float r = mirrored((row[i] - start_row) * scale_row - 0.5f, last_row);
        float c = mirrored((column[i] - start_column) * scale_column - 0.5f, last_column);
        int32_t r_0 = (int32_t)r, c_0 = (int32_t)c;
        t->nearest[i] = inside ? (int32_t)row[i] * mask_width + (int32_t)column[i] : -1;
        t->first[i] = r_0 * row_step + c_0 * column_step;
        t->down[i] = (float)r_0 < last_row ? row_step : 0;
        t->right[i] = (float)c_0 < last_column ? column_step : 0;
        t->below[i] = r - (float)r_0;
        t->after[i] = c - (float)c_0;
    }
}

#define MIX(Z) /* bilinear, of one channel's pixels Z */                                       \
    for (long i = 0; i < count; i++) {                                                         \
        int32_t p = t.first[i], q = p + t.down[i], x = t.right[i];                             \
        float upper = Z[p] + t.after[i] * ((float)Z[p + x] - (float)Z[p]);                     \
        float lower = Z[q] + t.after[i] * ((float)Z[q + x] - (float)Z[q]);                     \
        to[i] = upper + t.below[i] * (lower - upper);                                          \
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
            if (s->nodes) displace(s, count, row, column);
            find(s, count, row, column, &t);
            for (long i = 0; i < count; i++) mask[out + i] = t.nearest[i] < 0 ? IGNORE : s->mask[t.nearest[i]];
            for (int64_t k = 0; k < s->channels; k++) {
                float *to = image + k * height * width + out;
                if (s->is_float) {
                    const float *z = (const float *)s->image + k * s->channel_step;
                    MIX(z)
                } else {
                    const uint8_t *z = (const uint8_t *)s->image + k * s->channel_step;
                    MIX(z)
                }
            }
            if (s->weights) {
                float *to = weights + out;
                const float *z = s->weights;
                find(&whole, count, row, column, &t);
                MIX(z)
                for (long i = 0; i < count; i++) to[i] = t.nearest[i] < 0 ? 0 : to[i];
            }
        }
}
