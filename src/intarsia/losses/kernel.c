/* The sums of statistics.py and their gradient, for processors: plain C, compiled by kernel.py on the user's machine.

   Pixels are taken in blocks whose softmax stays in the core's own cache, so that the forward reads the logits once from
   memory, and the backward, which makes the softmax again instead of keeping it, reads them once and writes the gradient
   once. All loops run over the pixels of a block and are written for the compiler to vectorise; sums are float within a
   block and double between blocks. z[k * class_step + i * pixel_step] is the logit of class k at pixel i, so that both
   orders of memory (NCHW and channels last) are read as they are. NaN and infinity come through as in torch. */

#include <stdint.h>
#include <string.h>
#ifdef __linux__
#include <sys/mman.h>
#endif

#define EACH_PIXEL for (long i = 0; i < size; i++)
#define SIMD _Pragma("omp simd")
#define SUM(...) _Pragma(#__VA_ARGS__)

enum { CELLS = 16384, WIDEST = 512, IGNORE = 255 };

typedef struct {
    float e[CELLS];        /* exp(z - max), later p; class by class, pixels side by side */
    float max[WIDEST];
    float sum[WIDEST];     /* of exp(z - max) over classes */
    float true_z[WIDEST];  /* z - max of the true class */
    float scale[WIDEST];   /* 1 / sum, 0 at ignored pixels */
    float weight[WIDEST];  /* w, 0 at ignored pixels */
    float shift[WIDEST];   /* used by the gradient */
    int32_t truth[WIDEST]; /* -1 at ignored pixels */
} Block;

typedef struct {
    const float *z;
    int64_t class_step, pixel_step;
    const void *mask;
    int32_t wide;          /* 1: mask is int64; 0: uint8 */
    const float *weights;  /* or NULL: 1 */
    int64_t classes, pixels;
} Image;

/* e^x for x <= 0: 2^n e^r with |r| <= ln 2 / 2, to 1e-7 (coefficients: Cephes expf); 0 below -87; NaN stays. */
static inline float exp_of(float x)
{
    const float round = 12582912.0f; /* 1.5 * 2^23: the sum's last bits are the nearest integer */
    float shifted = x * 1.44269504088896341f + round, n = shifted - round, power, y;
    float r = x - n * 0.693359375f - n * -2.12194440e-4f;
    uint32_t bits;
    memcpy(&bits, &shifted, 4);
    bits = (bits + 127u) << 23;
    memcpy(&power, &bits, 4);
    y = 1.9875691500e-4f * r + 1.3981999507e-3f;
    y = y * r + 8.3334519073e-3f;
    y = y * r + 4.1665795894e-2f;
    y = y * r + 1.6666665459e-1f;
    y = y * r + 5.0000001201e-1f;
    y = y * (r * r) + r + 1.0f;
    return x < -87.0f ? 0.0f : y * power;
}

/* ln x for 1 <= x < 2^24, to 1e-7 (coefficients: Cephes logf); NaN stays. */
static inline float log_of(float x)
{
    uint32_t bits;
    float m, n, y, square;
    memcpy(&bits, &x, 4);
    int32_t exponent = (int32_t)(bits - 0x3f3504f3u) >> 23; /* so that sqrt(1/2) <= m < sqrt(2) */
    bits -= (uint32_t)exponent << 23;
    memcpy(&m, &bits, 4);
    n = (float)exponent;
    m -= 1.0f;
    square = m * m;
    y = 7.0376836292e-2f * m - 1.1514610310e-1f;
    y = y * m + 1.1676998740e-1f;
    y = y * m - 1.2420140846e-1f;
    y = y * m + 1.4249322787e-1f;
    y = y * m - 1.6668057665e-1f;
    y = y * m + 2.0000714765e-1f;
    y = y * m - 2.4999993993e-1f;
    y = y * m + 3.3333331174e-1f;
    y = y * m * square + n * -2.12194440e-4f - 0.5f * square;
    return m + y + n * 0.693359375f + (x - x);
}

static long block_size(int64_t classes)
{
    long size = (long)(CELLS / classes) & ~15L;
    return size < WIDEST ? size : WIDEST;
}

/* Truth and weights of the pixels from `first` on; not 0 if there is a number that is no class and not IGNORE. */
static int32_t load_truth(const Image *image, int64_t first, long size, Block *b)
{
    int32_t classes = (int32_t)image->classes, wrong = 0;
    if (image->wide) {
        const int64_t *mask = (const int64_t *)image->mask + first;
        SIMD EACH_PIXEL b->truth[i] = mask[i] < 0 || mask[i] > IGNORE ? IGNORE + 1 : (int32_t)mask[i];
    } else {
        const uint8_t *mask = (const uint8_t *)image->mask + first;
        SIMD EACH_PIXEL b->truth[i] = mask[i];
    }
    SUM(omp simd reduction(|:wrong))
    EACH_PIXEL {
        int32_t t = b->truth[i];
        wrong |= t >= classes && t != IGNORE;
        b->truth[i] = t < classes ? t : -1;
    }
    if (image->weights) {
        const float *weights = image->weights + first;
        SIMD EACH_PIXEL b->weight[i] = b->truth[i] < 0 ? 0.0f : weights[i];
    } else {
        SIMD EACH_PIXEL b->weight[i] = b->truth[i] < 0 ? 0.0f : 1.0f;
    }
    return wrong;
}

/* exp(z - max), its sum, 1 / sum and the true class's z - max, of the pixels from `first` on. */
static void softmax(const Image *image, int64_t first, long size, Block *b)
{
    const float *z = image->z + first * image->pixel_step;
    int64_t step = image->class_step;
    long classes = (long)image->classes;
    if (image->pixel_step != 1) { /* pixels apart: put them side by side */
        EACH_PIXEL
            for (long k = 0; k < classes; k++) b->e[k * size + i] = z[i * image->pixel_step + k * step];
        z = b->e;
        step = size;
    }
    memcpy(b->max, z, sizeof(float) * (size_t)size);
    for (long k = 1; k < classes; k++) {
        const float *z_k = z + k * step;
        SIMD EACH_PIXEL b->max[i] = z_k[i] > b->max[i] ? z_k[i] : b->max[i];
    }
    memset(b->sum, 0, sizeof b->sum);
    memset(b->true_z, 0, sizeof b->true_z);
    for (long k = 0; k < classes; k++) {
        const float *z_k = z + k * step;
        float *e_k = b->e + k * size;
        SIMD EACH_PIXEL {
            float x = z_k[i] - b->max[i], e = exp_of(x);
            e_k[i] = e;
            b->sum[i] += e;
            b->true_z[i] = b->truth[i] == (int32_t)k ? x : b->true_z[i];
        }
    }
    SIMD EACH_PIXEL b->scale[i] = b->truth[i] < 0 ? 0.0f : 1.0f / b->sum[i];
}

/* Adds to `sums`: nll, weight, then I, P, Q (if `squares`) and T of every class. Returns 1 if the mask is wrong. */
int32_t statistics_forward(const Image *image, int32_t squares, double *sums)
{
    Block b;
    int32_t wrong = 0;
    int64_t classes = image->classes;
    long most = block_size(classes);
    double *inter = sums + 2, *prob = inter + classes, *square = prob + classes, *true_count = square + classes;
    for (int64_t first = 0; first < image->pixels; first += most) {
        long size = image->pixels - first < most ? (long)(image->pixels - first) : most;
        float nll = 0, weight = 0;
        wrong |= load_truth(image, first, size, &b);
        softmax(image, first, size, &b);
        SUM(omp simd reduction(+:nll, weight))
        EACH_PIXEL {
            float each = (log_of(b.sum[i]) - b.true_z[i]) * b.weight[i];
            nll += b.truth[i] < 0 ? 0.0f : each;
            weight += b.weight[i];
        }
        sums[0] += nll;
        sums[1] += weight;
        for (long k = 0; k < classes; k++) {
            const float *e_k = b.e + k * size;
            float i_k = 0, p_k = 0, q_k = 0, t_k = 0;
            SUM(omp simd reduction(+:i_k, p_k, q_k, t_k))
            EACH_PIXEL {
                float p = e_k[i] * b.scale[i];
                int hit = b.truth[i] == (int32_t)k;
                p_k += p;
                q_k += p * p;
                i_k += hit ? p : 0.0f;
                t_k += hit ? 1.0f : 0.0f;
            }
            inter[k] += i_k;
            prob[k] += p_k;
            square[k] += squares ? q_k : 0.0f;
            true_count[k] += t_k;
        }
    }
    return wrong;
}

/* -log p of the true class of every pixel, 0 where ignored. Returns 1 if the mask is wrong. */
int32_t statistics_pixels(const Image *image, float *nll)
{
    Block b;
    int32_t wrong = 0;
    long most = block_size(image->classes);
    for (int64_t first = 0; first < image->pixels; first += most) {
        long size = image->pixels - first < most ? (long)(image->pixels - first) : most;
        wrong |= load_truth(image, first, size, &b);
        softmax(image, first, size, &b);
        SIMD EACH_PIXEL nll[first + i] = b.truth[i] < 0 ? 0.0f : log_of(b.sum[i]) - b.true_z[i];
    }
    return wrong;
}

/* The gradient, in the order of memory of the logits; d_square may be NULL. Exactly 0 at ignored pixels. */
void statistics_backward(const Image *image, float d_nll, const float *d_inter, const float *d_prob,
                         const float *d_square, float *out)
{
    Block b;
    long classes = (long)image->classes, most = block_size(classes);
    for (int64_t first = 0; first < image->pixels; first += most) {
        long size = image->pixels - first < most ? (long)(image->pixels - first) : most;
        float *out_block = out + first * image->pixel_step;
        load_truth(image, first, size, &b);
        softmax(image, first, size, &b);
        SIMD EACH_PIXEL b.shift[i] = b.weight[i] *= d_nll;
        for (long k = 0; k < classes; k++) { /* shift = w dnll - sum p_k a_k */
            float *e_k = b.e + k * size, d_i = d_inter[k], d_p = d_prob[k], d_q = d_square ? 2 * d_square[k] : 0.0f;
            SIMD EACH_PIXEL {
                float p = e_k[i] * b.scale[i];
                e_k[i] = p;
                b.shift[i] -= p * (d_p + d_q * p + (b.truth[i] == (int32_t)k ? d_i : 0.0f));
            }
        }
        for (long k = 0; k < classes; k++) {
            float *p_k = b.e + k * size, d_i = d_inter[k], d_p = d_prob[k], d_q = d_square ? 2 * d_square[k] : 0.0f;
            float *to = image->pixel_step == 1 ? out_block + k * image->class_step : p_k;
            SIMD EACH_PIXEL {
                float p = p_k[i], a = d_p + d_q * p + b.shift[i], at_truth = p * (a + d_i) - b.weight[i];
                float gradient = b.truth[i] == (int32_t)k ? at_truth : p * a;
                to[i] = b.truth[i] < 0 ? 0.0f : gradient;
            }
        }
        if (image->pixel_step != 1)
            EACH_PIXEL
                for (long k = 0; k < classes; k++)
                    out_block[i * image->pixel_step + k * image->class_step] = b.e[k * size + i];
    }
}

/* Ask for huge pages below memory that is about to be filled: the first touch of small pages costs more than the sums. */
void statistics_expect(char *start, int64_t bytes)
{
#ifdef MADV_HUGEPAGE
    const uintptr_t page = 1u << 21;
    uintptr_t first = ((uintptr_t)start + page - 1) & ~(page - 1), end = ((uintptr_t)start + (uintptr_t)bytes) & ~(page - 1);
    if (first < end) (void)madvise((void *)first, end - first, MADV_HUGEPAGE);
#else
    (void)start, (void)bytes;
#endif
}
