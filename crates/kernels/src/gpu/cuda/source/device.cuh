// What kernels use of the device, in CUDA's own words. `emulated` says the same for a CPU.

using u16 = unsigned short;
using u32 = unsigned int;
using u64 = unsigned long long;

#define DEVICE static __device__ __forceinline__
#define METHOD __device__ __forceinline__

/// KiB of shared memory that a work-group may have, and whether they are many.
#if __CUDA_ARCH__ == 800 || __CUDA_ARCH__ == 870
constexpr u32 ROOM = 163;
#elif __CUDA_ARCH__ >= 900 && __CUDA_ARCH__ < 1200
constexpr u32 ROOM = 227;
#else
constexpr u32 ROOM = 99;
#endif
constexpr bool ROOMY = ROOM > 99;

/// Makes a kernel of a function, with a constant that says how many bytes of shared memory it needs, for work-groups of
/// so many threads of which so many are to share a multiprocessor.
#define KERNEL(name, bytes_name, bytes, threads, groups, ...)                                                         \
    extern "C" __constant__ u32 bytes_name = bytes;                                                                   \
    static_assert(bytes <= ROOM * 1024, "a work-group needs more shared memory than it may have");                    \
    extern "C" __global__ void __launch_bounds__(threads, groups) name(const __grid_constant__ Arguments arguments) { \
        __VA_ARGS__(arguments);                                                                                       \
    }

DEVICE u32 thread() { return threadIdx.x; }
DEVICE u32 block_x() { return blockIdx.x; }
DEVICE u32 block_y() { return blockIdx.y; }
DEVICE u32 block_z() { return blockIdx.z; }
DEVICE void barrier() { __syncthreads(); }
DEVICE float shuffle_xor(float value, int mask) { return __shfl_xor_sync(0xffffffffu, value, mask); }
DEVICE float as_float(u32 bits) { return __uint_as_float(bits); }
DEVICE u32 as_bits(float value) { return __float_as_uint(value); }

DEVICE unsigned char *shared_memory() {
    extern __shared__ __align__(1024) unsigned char memory[];
    return memory;
}

DEVICE u32 shared_address(const void *at) { return (u32)__cvta_generic_to_shared(at); }

/// Two values to the nearest bf16, the first in the lower half.
DEVICE u32 pack_bf16(float low, float high) {
    u32 packed;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    return packed;
}

/// Four 8 × 8 matrices of 16-bit values: thread 8 m + i names row i of matrix m, and receives of each matrix the values
/// 2 (lane % 4) and the next of row lane / 4.
DEVICE void load_matrices(u32 (&to)[4], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(shared_address(row))
                 : "memory");
}

/// The same of the transposed matrices.
DEVICE void load_matrices_transposed(u32 (&to)[4], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(shared_address(row))
                 : "memory");
}

/// [`load_matrices`] of two matrices.
DEVICE void load_two_matrices(u32 (&to)[2], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(to[0]), "=r"(to[1])
                 : "r"(shared_address(row))
                 : "memory");
}

/// [`load_matrices_transposed`] of two matrices.
DEVICE void load_two_matrices_transposed(u32 (&to)[2], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                 : "=r"(to[0]), "=r"(to[1])
                 : "r"(shared_address(row))
                 : "memory");
}

/// Adds a product of 16 × 16 by 16 × 8 values of bf16.
DEVICE void multiply(float (&sums)[4], const u32 (&a)[4], const u32 (&b)[2]) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/// Copies 16 bytes to shared memory in the background: zeros where they lie outside, and nothing is read there.
DEVICE void copy_async(void *shared, const void *global, bool inside) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global),
                 "r"(inside ? 16 : 0)
                 : "memory");
}

/// The copies since the last call are a group.
DEVICE void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

/// Waits for this thread's copies, but for those of its newest `Left` groups.
template <int Left> DEVICE void wait_for_copies() { asm volatile("cp.async.wait_group %0;" ::"n"(Left) : "memory"); }

/// How the pieces of 16 bytes of lines are shuffled: of lines of 128 bytes by the line's number among eight, of lines of
/// 64 bytes by that of a pair among four.
constexpr u32 SWIZZLE_128 = 1, SWIZZLE_64 = 2;

/// A matrix in shared memory as instructions of groups of warps are given it: where its first eight lines begin, the bytes
/// from there to the next block of 64 rows, and to the next eight lines.
DEVICE u64 shared_matrix(const void *at, u32 block, u32 eight, u32 swizzle) {
    return (u64)(shared_address(at) >> 4) | (u64)(block >> 4) << 16 | (u64)(eight >> 4) << 32 | (u64)swizzle << 62;
}

/// [`multiply_group`] of 64 columns.
template <int LeftTerms, int RightTerms> DEVICE void multiply_64(float *d, u64 a, u64 b) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
                 "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
                 "%32, %33, 1, 1, 1, %34, %35;"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]),
                   "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]),
                   "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]),
                   "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]),
                   "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]),
                   "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]),
                   "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]),
                   "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31])
                 : "l"(a), "l"(b), "n"(LeftTerms), "n"(RightTerms));
}

/// [`multiply_group`] of 128 columns.
template <int LeftTerms, int RightTerms> DEVICE void multiply_128(float *d, u64 a, u64 b) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
                 "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
                 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
                 "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
                 "%64, %65, 1, 1, 1, %66, %67;"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]),
                   "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]),
                   "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]),
                   "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]),
                   "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]),
                   "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]),
                   "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]),
                   "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31]),
                   "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35]),
                   "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]),
                   "+f"(d[40]), "+f"(d[41]), "+f"(d[42]), "+f"(d[43]),
                   "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]),
                   "+f"(d[48]), "+f"(d[49]), "+f"(d[50]), "+f"(d[51]),
                   "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]),
                   "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59]),
                   "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), "+f"(d[63])
                 : "l"(a), "l"(b), "n"(LeftTerms), "n"(RightTerms));
}

/// Starts adding a product of 64 × 16 by 16 × `8 Across` values of bf16, by a group of warps. An operand's lines are the
/// terms of its rows (or columns), or 64 of these of a term. Sums are as those of [`multiply`], a warp's the next 16 rows.
template <bool LeftTerms, bool RightTerms, u32 Across> DEVICE void multiply_group(float (&sums)[Across][4], u64 a, u64 b) {
    static_assert(Across == 8 || Across == 16, "instructions of 64 or 128 columns");
    if constexpr (Across == 8) multiply_64<LeftTerms, RightTerms>(&sums[0][0], a, b);
    else multiply_128<LeftTerms, RightTerms>(&sums[0][0], a, b);
}

/// Before a group's first products, and after its last ones: waits until they are done.
DEVICE void begin_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
DEVICE void end_products() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
}

/// What this thread wrote or copied to shared memory is seen by products of groups after the next barrier.
DEVICE void publish_copies() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
