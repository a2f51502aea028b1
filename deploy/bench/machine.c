// What this machine can do at most: `machine THREADS` prints bytes a second that are read from memory, and multiplies
// of bytes and of floats a second, each with adding, as JSON. Every figure is the best of some rounds, all threads at
// once. Compiled for the CPU that it runs on: the instructions are those that a kernel has at its best.

#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#define BYTES (1l << 30)
#define HUGE (2l << 20)
#define ROUNDS 5
#define STEPS 100000000l
#define MOST_THREADS 64

// As wide as the registers are.
#if defined(__AVX512F__)
#define WIDTH 64
#elif defined(__AVX__)
#define WIDTH 32
#else
#define WIDTH 16
#endif
typedef uint64_t words __attribute__((vector_size(WIDTH)));
typedef float floats __attribute__((vector_size(WIDTH)));

#if defined(__AVX512VNNI__)
#include <immintrin.h>
#define BYTE_OPERATION "vpdpbusd, 512 bits"
typedef __m512i sums;
#define BYTES_A_STEP 64
#define DOT(sum, a, b) _mm512_dpbusd_epi32(sum, a, b)
#elif defined(__AVX2__)
#include <immintrin.h>
#define BYTE_OPERATION "vpmaddubsw and vpmaddwd, 256 bits"
typedef __m256i sums;
#define BYTES_A_STEP 32
#define DOT(sum, a, b) _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), _mm256_set1_epi16(1)))
#elif defined(__ARM_FEATURE_DOTPROD)
#include <arm_neon.h>
#define BYTE_OPERATION "sdot, 128 bits"
typedef int32x4_t sums;
#define BYTES_A_STEP 16
#define DOT(sum, a, b) vdotq_s32(sum, vreinterpretq_s8_s32(a), vreinterpretq_s8_s32(b))
#else
#define BYTE_OPERATION "a multiply of floats"
typedef floats sums;
#define BYTES_A_STEP (WIDTH / 4)
#define DOT(sum, a, b) ((sum) + (a) * (b))
#endif

static const words *memory;
static pthread_barrier_t together;
static long threads;
static volatile uint64_t sink;

// Says that a vector has changed, so that the compiler computes what it could know.
#if defined(__x86_64__)
#define CHANGED(vector) __asm__ volatile("" : "+v"(vector))
#else
#define CHANGED(vector) __asm__ volatile("" : "+w"(vector))
#endif

// Sums that do not wait for each other, more than the units have steps under way.
#define INDEPENDENT 12

static void reads(long index) {
    long share = BYTES / threads / (long)sizeof(words) / 8 * 8;
    const words *from = memory + index * share;
    words sum[8] = {0};
    for (long at = 0; at < share; at += 8)
        for (int i = 0; i < 8; i++) sum[i] += from[at + i];
    for (int i = 1; i < 8; i++) sum[0] += sum[i];
    sink += sum[0][0];
}

static void dots(long index) {
    sums sum[INDEPENDENT] = {0}, a = {0}, b = {0};
    (void)index;
    CHANGED(a);
    CHANGED(b);
    for (long step = 0; step < STEPS / INDEPENDENT; step++)
#pragma GCC unroll 12
        for (int i = 0; i < INDEPENDENT; i++) {
            sum[i] = DOT(sum[i], a, b);
            CHANGED(sum[i]);
        }
}

static void multiplies(long index) {
    floats sum[INDEPENDENT] = {0}, a = {0}, b = {0};
    (void)index;
    CHANGED(a);
    CHANGED(b);
    for (long step = 0; step < STEPS / INDEPENDENT; step++)
#pragma GCC unroll 12
        for (int i = 0; i < INDEPENDENT; i++) {
            sum[i] += a * b;
            CHANGED(sum[i]);
        }
}

static void (*work)(long);

static void *thread(void *index) {
    pthread_barrier_wait(&together);
    work((long)index);
    return NULL;
}

// Seconds of the fastest round.
static double fastest(void (*what)(long)) {
    double best = 1e9;
    work = what;
    for (int round = 0; round < ROUNDS; round++) {
        pthread_t started[MOST_THREADS];
        struct timespec begun, ended;
        for (long i = 0; i < threads; i++) pthread_create(&started[i], NULL, thread, (void *)i);
        clock_gettime(CLOCK_MONOTONIC, &begun);
        pthread_barrier_wait(&together);
        for (long i = 0; i < threads; i++) pthread_join(started[i], NULL);
        clock_gettime(CLOCK_MONOTONIC, &ended);
        double seconds = (double)(ended.tv_sec - begun.tv_sec) + (double)(ended.tv_nsec - begun.tv_nsec) / 1e9;
        if (seconds < best) best = seconds;
    }
    return best;
}

int main(int n, char **arguments) {
    threads = n == 2 ? atol(arguments[1]) : 0;
    if (threads < 1 || threads > MOST_THREADS) return fprintf(stderr, "usage: machine THREADS\n"), 2;
    char *room = mmap(NULL, BYTES + HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (room == MAP_FAILED) return perror("machine: memory"), 1;
    // In huge pages, so that finding them is not what is measured.
    char *begin = (char *)(((uintptr_t)room + HUGE - 1) / HUGE * HUGE);
    madvise(begin, BYTES, MADV_HUGEPAGE);
    // Pages that were never written are all the same one, which the caches hold.
    for (long at = 0; at < BYTES; at += 4096) begin[at] = 1;
    memory = (const words *)begin;
    pthread_barrier_init(&together, NULL, (unsigned)threads + 1);
    printf("{\"read_bytes_per_second\": %.4g, ", (double)BYTES / fastest(reads));
    printf("\"byte_multiplies_per_second\": %.4g, \"byte_operation\": \"%s\", ",
           (double)(STEPS * BYTES_A_STEP * threads) / fastest(dots), BYTE_OPERATION);
    printf("\"float_multiplies_per_second\": %.4g}\n", (double)(STEPS * WIDTH / 4 * threads) / fastest(multiplies));
}
