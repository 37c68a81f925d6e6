/* The border weights of border.py in one pass over columns and one over rows, however many objects there are: plain C,
   compiled by compiled.py on the user's machine. Distances are exact, in squared pixels. Objects are the equal numbers above 0. */

#include <stdint.h>

#define SIMD _Pragma("omp simd")
#define SUM(...) _Pragma(#__VA_ARGS__)

enum { BLOCK = 32, FAR = 1 << 29 };

/* One column's nearest object and the nearest other one, and how far both are (squared). */
typedef struct {
    int32_t *first, *second, *d_first, *d_second;
} Pair;

static inline int32_t least(int32_t a, int32_t b) { return a < b ? a : b; }
static inline int32_t most(int32_t a, int32_t b) { return a > b ? a : b; }

/* A row of pairs from the row before it: one step further away, and this row's own pixels at distance 0. `row_*` hold the
   row numbers of the pixels seen last. */
static void step(const int32_t *numbers, int64_t width, int32_t y, int32_t *first, int32_t *second, int32_t *row_first,
                 int32_t *row_second)
{
    SIMD for (int64_t x = 0; x < width; x++) {
        int32_t number = numbers[x], before = first[x];
        int other = number && number != before;
        second[x] = other ? before : second[x];
        row_second[x] = other ? row_first[x] : row_second[x];
        first[x] = number ? number : before;
        row_first[x] = number ? y : row_first[x];
    }
}

/* Whether nothing at `square` or further away matters to any pixel of a block: the second is nearer than that, or can no
   longer be near enough. */
static int settled(const int32_t *d_1, const int32_t *d_2, int32_t square, float reach)
{
    float open = 0;
    SUM(omp simd reduction(max:open))
    for (int i = 0; i < BLOCK; i++) {
        float d = __builtin_sqrtf((float)d_1[i]), left = reach - (d < reach / 2 ? d : reach / 2);
        float bound = left * left < (float)d_2[i] ? left * left : (float)d_2[i];
        open = bound > open ? bound : open;
    }
    return open <= (float)square;
}

/* Of every pixel the nearest object and the nearest other one in its column, if nearer than `reach`. `room` holds
   4 * height * width + 4 * width numbers. */
static Pair by_columns(const int32_t *numbers, int64_t height, int64_t width, int32_t reach, int32_t *room)
{
    int64_t size = height * width;
    Pair all = {room, room + size, room + 2 * size, room + 3 * size};
    int32_t *first = room + 4 * size, *second = first + width, *row_first = second + width, *row_second = row_first + width;
    const int32_t nowhere = -(1 << 14);
    for (int way = 0; way < 2; way++) { /* down, then up */
        SIMD for (int64_t x = 0; x < width; x++) {
            first[x] = second[x] = 0;
            row_first[x] = row_second[x] = nowhere;
        }
        for (int64_t i = 0; i < height; i++) {
            int64_t y = way ? height - 1 - i : i, at = y * width;
            int32_t *a = all.first + at, *b = all.second + at, *d_a = all.d_first + at, *d_b = all.d_second + at;
            step(numbers + at, width, (int32_t)i, first, second, row_first, row_second);
            SIMD for (int64_t x = 0; x < width; x++) {
                int32_t far_1 = (int32_t)i - row_first[x], far_2 = (int32_t)i - row_second[x];
                int32_t d_1 = far_1 < reach ? far_1 * far_1 : FAR, d_2 = far_2 < reach ? far_2 * far_2 : FAR;
                int32_t n_1 = d_1 < FAR ? first[x] : 0, n_2 = d_2 < FAR ? second[x] : 0;
                if (way) { /* with what lies above */
                    int32_t m_1 = a[x], m_2 = b[x], e_1 = d_a[x], e_2 = d_b[x];
                    int nearer = d_1 < e_1, same = n_1 == m_1;
                    int32_t rest_n = nearer ? (same ? m_2 : m_1) : (same ? n_2 : n_1);
                    int32_t rest_d = nearer ? (same ? e_2 : e_1) : (same ? d_2 : d_1);
                    int32_t own_n = nearer ? n_2 : m_2, own_d = nearer ? d_2 : e_2;
                    n_1 = nearer ? n_1 : m_1;
                    d_1 = nearer ? d_1 : e_1;
                    n_2 = own_d < rest_d ? own_n : rest_n;
                    d_2 = own_d < rest_d ? own_d : rest_d;
                }
                a[x] = n_1;
                b[x] = n_2;
                d_a[x] = d_1;
                d_b[x] = d_2;
            }
        }
    }
    return all;
}

/* Of the BLOCK pixels of a row from x_0 on, the squared distances to the nearest object and to the nearest other one, FAR
   where the two cannot add up to less than `reach`; whether there are two. `row` are the pairs of the row's columns.

   An object that is neither of the two nearest in a column has two nearer ones there for every pixel of the row, so that two
   a column are enough. */
static int by_rows(Pair row, int64_t width, int64_t x_0, int32_t reach, int32_t *d_1, int32_t *d_2)
{
    int64_t count = width - x_0 < BLOCK ? width - x_0 : BLOCK;
    int64_t from = x_0 < reach ? 0 : x_0 - reach, to = x_0 + count + reach < width ? x_0 + count + reach : width;
    int32_t number[BLOCK], low = INT32_MAX, high = 0, more = 0, close = FAR;
    SUM(omp simd reduction(min:low, close) reduction(max:high, more))
    for (int64_t x = from; x < to; x++) {
        low = least(low, row.first[x] ? row.first[x] : INT32_MAX);
        high = most(high, row.first[x]);
        more = most(more, row.second[x]);
        close = least(close, row.d_first[x]);
    }
    /* d1 + d2 < reach needs two objects, and d1 < reach / 2 */
    if ((high <= low && !more) || 4 * (int64_t)close >= (int64_t)reach * reach) return 0;
    for (int i = 0; i < BLOCK; i++) {
        number[i] = 0;
        d_1[i] = d_2[i] = FAR;
    }
    for (int32_t dx = 0; dx < reach; dx++) {
        int32_t square = dx * dx;
        for (int side = dx ? -1 : 1; side < 2; side += 2) {
            int64_t shift = x_0 + (int64_t)side * dx;
            int begin = shift < 0 ? (int)(-shift < BLOCK ? -shift : BLOCK) : 0;
            int end = shift + count > width ? (int)(width - shift) : (int)count;
            const int32_t *a = row.first + shift, *b = row.second + shift;
            const int32_t *d_a = row.d_first + shift, *d_b = row.d_second + shift;
            SIMD for (int i = begin; i < end; i++) {
                int32_t d = d_a[i] + square, n = a[i];
                d_2[i] = n == number[i] ? d_2[i] : least(d_2[i], most(d_1[i], d));
                number[i] = d < d_1[i] ? n : number[i];
                d_1[i] = least(d_1[i], d);
                d = d_b[i] + square;
                n = b[i];
                d_2[i] = n == number[i] ? d_2[i] : least(d_2[i], most(d_1[i], d));
                number[i] = d < d_1[i] ? n : number[i];
                d_1[i] = least(d_1[i], d);
            }
        }
        if (dx % 4 == 3 && settled(d_1, d_2, square, (float)reach)) break;
    }
    return 1;
}

static Pair row_of(Pair all, int64_t at)
{
    Pair row = {all.first + at, all.second + at, all.d_first + at, all.d_second + at};
    return row;
}

/* e^x for x <= 0, to 1e-9: 2^n e^r with |r| <= ln 2 / 2 and Taylor's first ten terms; 0 below -700. */
static inline double exp_of(double x)
{
    const double round = 6755399441055744.0; /* 1.5 * 2^52: the sum's last bits are the nearest integer */
    double shifted = x * 1.4426950408889634 + round, n = shifted - round, r = x - n * 0.6931471805599453, power, y;
    int64_t bits;
    __builtin_memcpy(&bits, &shifted, 8);
    bits = (int64_t)((uint64_t)(bits + 1023) << 52);
    __builtin_memcpy(&power, &bits, 8);
    y = 1.0 / 362880;
    y = y * r + 1.0 / 40320;
    y = y * r + 1.0 / 5040;
    y = y * r + 1.0 / 720;
    y = y * r + 1.0 / 120;
    y = y * r + 1.0 / 24;
    y = y * r + 1.0 / 6;
    y = y * r + 0.5;
    y = y * r + 1.0;
    y = y * r + 1.0;
    return x < -700 ? 0.0 : y * power;
}

/* w0 exp(-(d1 + d2)^2 / (2 sigma^2)) of every pixel, 0 below `negligible`. */
void border_weights(const int32_t *numbers, int64_t height, int64_t width, int32_t reach, double w0, double sigma,
                    double negligible, int32_t *room, float *weights)
{
    Pair all = by_columns(numbers, height, width, reach, room);
    int32_t d_1[BLOCK], d_2[BLOCK];
    for (int64_t y = 0; y < height; y++)
        for (int64_t x = 0; x < width; x += BLOCK) {
            int64_t count = width - x < BLOCK ? width - x : BLOCK, at = y * width + x;
            if (!by_rows(row_of(all, y * width), width, x, reach, d_1, d_2)) {
                SIMD for (int64_t i = 0; i < count; i++) weights[at + i] = 0;
                continue;
            }
            SIMD for (int64_t i = 0; i < count; i++) {
                double d = (__builtin_sqrt(d_1[i]) + __builtin_sqrt(d_2[i])) / sigma, w = w0 * exp_of(d * d / -2);
                weights[at + i] = w < negligible || d_2[i] >= FAR ? 0 : (float)w;
            }
        }
}
