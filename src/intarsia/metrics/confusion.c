/* Pairs of true and predicted class, counted: plain C, compiled by compiled.py on the user's machine.

   Pixels are taken in blocks. First the bin of each is computed, vectorised, with bins of their own for what is not counted
   or wrong; then they are counted into several tables in turn, since labels come in runs, and to add to the same number
   again takes as long as a store and a load. */

#include <stdint.h>

#define SIMD _Pragma("omp simd")
#define EACH_PIXEL for (long i = 0; i < size; i++)

enum { TABLES = 8, WIDEST = 1024, IGNORE = 255, NO_CLASS = 256 };

/* Class numbers from `first` on; `wide`: they are int64, else uint8. */
static void load(const void *numbers, int32_t wide, int64_t first, long size, uint16_t *to)
{
    if (wide) {
        const int64_t *from = (const int64_t *)numbers + first;
        SIMD EACH_PIXEL to[i] = from[i] < 0 || from[i] > IGNORE ? NO_CLASS : (uint16_t)from[i];
    } else {
        const uint8_t *from = (const uint8_t *)numbers + first;
        SIMD EACH_PIXEL to[i] = from[i];
    }
}

/* Adds to `tables`, TABLES times K * K + 3 numbers: truth by prediction, then ignored, wrong truth and wrong prediction.
   K is at most 255. */
void confusion_count(const void *mask, int32_t wide_mask, const void *prediction, int32_t wide_prediction, int64_t classes,
                     int64_t pixels, int64_t *tables)
{
    uint16_t truth[WIDEST], found[WIDEST], bin[WIDEST];
    uint16_t k = (uint16_t)classes, ignored = (uint16_t)(k * k), wrong_truth = ignored + 1, wrong_found = ignored + 2;
    int64_t bins = classes * classes + 3;
    for (int64_t first = 0; first < pixels; first += WIDEST) {
        long size = pixels - first < WIDEST ? (long)(pixels - first) : WIDEST, i = 0;
        load(mask, wide_mask, first, size, truth);
        load(prediction, wide_prediction, first, size, found);
        SIMD EACH_PIXEL {
            uint16_t counted = found[i] < k ? (uint16_t)(truth[i] * k + found[i]) : wrong_found;
            counted = truth[i] < k ? counted : wrong_truth;
            bin[i] = truth[i] == IGNORE ? ignored : counted;
        }
        for (; i + TABLES <= size; i += TABLES)
            for (long table = 0; table < TABLES; table++) tables[table * bins + bin[i + table]]++;
        for (; i < size; i++) tables[bin[i]]++;
    }
}
