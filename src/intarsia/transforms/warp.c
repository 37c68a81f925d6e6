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

/* Rows `from` to `to` of a result of `width` columns: image (channels, height, width) float, mask, weights. */
void warp_rows(const Source *s, int64_t from, int64_t to, int64_t height, int64_t width, float *image, uint8_t *mask,
               float *weights)
{
    float row[WIDEST], column[WIDEST];
    const double *h = s->matrix;
    int64_t plane = height * width, last_row = s->height - 1, last_column = s->width - 1;
    for (int64_t y = from; y < to; y++)
        for (int64_t first = 0; first < width; first += WIDEST) {
            long count = width - first < WIDEST ? (long)(width - first) : WIDEST;
            SIMD for (long i = 0; i < count; i++) {
                double v = (double)y + 0.5, u = (double)(first + i) + 0.5, over = h[6] * v + h[7] * u + h[8];
                row[i] = (float)((h[0] * v + h[1] * u + h[2]) / over);
                column[i] = (float)((h[3] * v + h[4] * u + h[5]) / over);
            }
            if (s->nodes) displace(s, count, row, column);
            for (long i = 0; i < count; i++) {
                int64_t out = y * width + first + i;
                float r_f = __builtin_floorf(row[i]), c_f = __builtin_floorf(column[i]);
                int inside = r_f >= 0 && r_f < (float)s->mask_height && c_f >= 0 && c_f < (float)s->mask_width;
                int64_t at = inside ? (int64_t)r_f * s->mask_width + (int64_t)c_f : 0;
                mask[out] = inside ? s->mask[at] : IGNORE;
                float r = mirrored((float)((row[i] - s->start[0]) * s->scale[0] - 0.5), (float)last_row);
                float c = mirrored((float)((column[i] - s->start[1]) * s->scale[1] - 0.5), (float)last_column);
                int64_t r_0 = clamp((int64_t)r, last_row), c_0 = clamp((int64_t)c, last_column);
                int64_t r_1 = r_0 < last_row ? r_0 + 1 : r_0, c_1 = c_0 < last_column ? c_0 + 1 : c_0;
                float b = r - (float)r_0, a = c - (float)c_0;
                int64_t p_00 = r_0 * s->row_step + c_0 * s->column_step, p_01 = r_0 * s->row_step + c_1 * s->column_step;
                int64_t p_10 = r_1 * s->row_step + c_0 * s->column_step, p_11 = r_1 * s->row_step + c_1 * s->column_step;
                float w_00 = (1 - b) * (1 - a), w_01 = (1 - b) * a, w_10 = b * (1 - a), w_11 = b * a;
                for (int64_t k = 0; k < s->channels; k++) {
                    int64_t skip = k * s->channel_step;
                    if (s->is_float) {
                        const float *z = (const float *)s->image + skip;
                        image[k * plane + out] = w_00 * z[p_00] + w_01 * z[p_01] + w_10 * z[p_10] + w_11 * z[p_11];
                    } else {
                        const uint8_t *z = (const uint8_t *)s->image + skip;
                        image[k * plane + out] = w_00 * z[p_00] + w_01 * z[p_01] + w_10 * z[p_10] + w_11 * z[p_11];
                    }
                }
                if (s->weights) {
                    float r_w = mirrored(row[i] - 0.5f, (float)(s->mask_height - 1));
                    float c_w = mirrored(column[i] - 0.5f, (float)(s->mask_width - 1));
                    int64_t q_r = (int64_t)r_w, q_c = (int64_t)c_w, n_r = q_r + (q_r < s->mask_height - 1);
                    int64_t n_c = q_c + (q_c < s->mask_width - 1), w = s->mask_width;
                    float f_r = r_w - (float)q_r, f_c = c_w - (float)q_c;
                    float upper = (1 - f_c) * s->weights[q_r * w + q_c] + f_c * s->weights[q_r * w + n_c];
                    float lower = (1 - f_c) * s->weights[n_r * w + q_c] + f_c * s->weights[n_r * w + n_c];
                    weights[out] = inside ? (1 - f_r) * upper + f_r * lower : 0;
                }
            }
        }
}
