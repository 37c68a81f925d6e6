/* Euclidean distances on a pixel grid, exact, in squared pixels: plain C, compiled by compiled.py on the user's machine. */

#include <stdint.h>

#define SIMD _Pragma("omp simd")

enum { FAR = 1 << 29 };

static inline int32_t least(int32_t a, int32_t b) { return a < b ? a : b; }

/* Of every pixel the squared distance to the nearest one that is not `outside`, infinite where there is none; `room` holds
   3 * width numbers. Columns first, then the lower envelope of each row's parabolas (Meijster, Roerdink, Hesselink, 2000). */
void squared_distance(const uint8_t *outside, int64_t height, int64_t width, int32_t *room, float *out)
{
    int32_t *seat = room, *border = room + width, *column = room + 2 * width;
    for (int way = 0; way < 2; way++) {
        SIMD for (int64_t x = 0; x < width; x++) column[x] = FAR;
        for (int64_t i = 0; i < height; i++) {
            int64_t y = way ? height - 1 - i : i;
            SIMD for (int64_t x = 0; x < width; x++) {
                int32_t far = least(column[x] + 1, FAR);
                far = outside[y * width + x] ? far : 0;
                column[x] = far;
                out[y * width + x] = way && out[y * width + x] < (float)far ? out[y * width + x] : (float)far;
            }
        }
    }
    for (int64_t y = 0; y < height; y++) {
        float *row = out + y * width;
        int32_t top = -1;
        for (int64_t x = 0; x < width; x++) {
            if (row[x] >= (float)FAR) continue;
            int64_t g = (int64_t)row[x], start = 0;
            while (top >= 0) {
                int64_t s = seat[top], h = (int64_t)room[2 * width + s], b = border[top];
                if ((b - s) * (b - s) + h * h <= (b - x) * (b - x) + g * g) {
                    start = 1 + ((x * x - s * s) + (g * g - h * h)) / (2 * (x - s));
                    break;
                }
                top--;
            }
            column[x] = (int32_t)g;
            if (top < 0) start = 0;
            if (start < width) {
                seat[++top] = (int32_t)x;
                border[top] = (int32_t)start;
            }
        }
        if (top < 0) {
            for (int64_t x = 0; x < width; x++) row[x] = __builtin_inff();
            continue;
        }
        for (int64_t end = width; top >= 0; top--) {
            int64_t s = seat[top], h = column[s], from = border[top];
            SIMD for (int64_t x = from; x < end; x++) row[x] = (float)((x - s) * (x - s) + h * h);
            end = from;
        }
    }
}
