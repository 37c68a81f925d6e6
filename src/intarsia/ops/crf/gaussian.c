/* The smoothness kernel of a CRF in both directions, on maps with the classes of a pixel together: plain C, compiled by
   compiled.py on the user's machine. gaussian.py says what is computed; mean_field.c calls it row by row. */

#include <stdint.h>

enum { ROWS = 4, WIDE = 16 };

typedef float v16 __attribute__((vector_size(64)));
typedef float u16 __attribute__((vector_size(64), aligned(4)));

/* Rows y..y+3 of the Gaussian down the columns of a map, `width` floats a row, times the scales of rows and, given for every
   float of a row, of columns. `taps` has 2 radius + 1 numbers between three zeros at either end; `table` is room for 4 numbers
   for each of 2 radius + 4 rows. */
void gaussian_down(const float *map, int64_t height, int64_t width, int64_t radius, const float *taps, const float *scale_y,
                   const float *scale, int64_t y, float *const *out, float *table)
{
    int64_t from = y - radius < 0 ? 0 : y - radius, to = y + ROWS + radius < height ? y + ROWS + radius : height;
    int64_t count = to - from;
    for (int64_t i = 0; i < count; i++)
        for (int o = 0; o < ROWS; o++)
            table[i * ROWS + o] = y + o < height ? taps[ROWS - 1 + from + i - y + radius - o] * scale_y[from + i] * scale_y[y + o]
                                                 : 0;
    int64_t x = 0;
    for (; x + 2 * WIDE <= width; x += 2 * WIDE) {
        v16 a[ROWS] = {{0}}, b[ROWS] = {{0}}, first, second;
        const float *at = map + from * width + x;
        for (int64_t i = 0; i < count; i++, at += width) {
            first = *(const u16 *)at;
            second = *(const u16 *)(at + WIDE);
            for (int o = 0; o < ROWS; o++) {
                a[o] += table[i * ROWS + o] * first;
                b[o] += table[i * ROWS + o] * second;
            }
        }
        first = *(const u16 *)(scale + x);
        second = *(const u16 *)(scale + x + WIDE);
        for (int o = 0; o < ROWS; o++) {
            *(u16 *)(out[o] + x) = a[o] * first;
            *(u16 *)(out[o] + x + WIDE) = b[o] * second;
        }
    }
    for (; x < width; x++)
        for (int o = 0; o < ROWS; o++) {
            float sum = 0;
            for (int64_t i = 0; i < count; i++) sum += table[i * ROWS + o] * map[(from + i) * width + x];
            out[o][x] = sum * scale[x];
        }
}

/* The Gaussian along a row: out[x] = sum_t taps[t] in[x + t step], for `width` floats; in has 2 radius step more. */
void gaussian_along(const float *in, int64_t width, int64_t step, int64_t radius, const float *taps, float *out)
{
    int64_t count = 2 * radius + 1, x = 0;
    taps += ROWS - 1;
    for (; x + 4 * WIDE <= width; x += 4 * WIDE) {
        v16 a = {0}, b = {0}, c = {0}, d = {0};
        for (int64_t t = 0; t < count; t++) {
            const float *at = in + x + t * step;
            a += taps[t] * *(const u16 *)at;
            b += taps[t] * *(const u16 *)(at + WIDE);
            c += taps[t] * *(const u16 *)(at + 2 * WIDE);
            d += taps[t] * *(const u16 *)(at + 3 * WIDE);
        }
        *(u16 *)(out + x) = a;
        *(u16 *)(out + x + WIDE) = b;
        *(u16 *)(out + x + 2 * WIDE) = c;
        *(u16 *)(out + x + 3 * WIDE) = d;
    }
    for (; x < width; x++) {
        float sum = 0;
        for (int64_t t = 0; t < count; t++) sum += taps[t] * in[x + t * step];
        out[x] = sum;
    }
}
