/* The class of the largest logit of every pixel: plain C, compiled by compiled.py on the user's machine.

   Pixels are taken in blocks whose largest logits so far stay in the core's own cache, so that the logits are read once.
   z[k * class_step + r * row_step + i * pixel_step] is the logit of class k in row r at pixel i, so that both orders of memory
   (NCHW and channels last) and parts of a larger map are read as they are. NaN counts as the largest, and the first of equals
   wins, as in torch. */

#include <stdint.h>
#include <string.h>

#define SIMD _Pragma("omp simd")
#define EACH_PIXEL for (long i = 0; i < size; i++)

enum { CELLS = 16384, LEAST = 32, WIDEST = 512, LINE = 64 };

static inline float float_of_float32(float x) { return x; }

static inline float float_of_bfloat16(uint16_t x)
{
    uint32_t bits = (uint32_t)x << 16;
    float number;
    memcpy(&number, &bits, 4);
    return number;
}

/* Class by class there are more streams than processors follow: ask for the next block's logits while this one is read. */
static inline void expect(const char *start, long bytes)
{
    for (long at = 0; at < bytes; at += LINE) __builtin_prefetch(start + at, 0, 2);
}

#define AGAINST(KIND, STEP) \
    SIMD EACH_PIXEL { \
        float x = float_of_##KIND(z_k[i * (STEP)]), most = best[i]; \
        int larger = !(x <= most) & (most == most); \
        best[i] = larger ? x : most; \
        which[i] = larger ? k : which[i]; \
    }

#define CLASS_MAP(KIND, TYPE) \
    static void row_##KIND(const TYPE *z, int64_t class_step, int64_t pixel_step, int64_t classes, int64_t pixels, uint8_t *out) \
    { \
        float best[WIDEST]; \
        int32_t which[WIDEST]; \
        int64_t room = pixel_step == 1 ? WIDEST : CELLS / classes, most = room < LEAST ? LEAST : room < WIDEST ? room : WIDEST; \
        for (int64_t first = 0; first < pixels; first += most) { \
            int64_t left = pixels - first; \
            long size = (long)(left < most ? left : most); \
            SIMD EACH_PIXEL best[i] = -__builtin_inff(); \
            SIMD EACH_PIXEL which[i] = 0; \
            for (int32_t k = 0; k < classes; k++) { \
                const TYPE *z_k = z + first * pixel_step + k * class_step; \
                if (pixel_step == 1) { \
                    if (left >= 2 * most) expect((const char *)(z_k + most), most * (long)sizeof(TYPE)); \
                    AGAINST(KIND, 1) \
                } else { \
                    AGAINST(KIND, pixel_step) \
                } \
            } \
            SIMD EACH_PIXEL out[first + i] = (uint8_t)which[i]; \
        } \
    } \
\
    void class_map_##KIND(const TYPE *z, const int64_t *steps, int64_t classes, int64_t rows, int64_t width, uint8_t *out, int64_t out_step) \
    { \
        for (int64_t r = 0; r < rows; r++) row_##KIND(z + r * steps[1], steps[0], steps[2], classes, width, out + r * out_step); \
    }

CLASS_MAP(float32, float)
CLASS_MAP(bfloat16, uint16_t)
