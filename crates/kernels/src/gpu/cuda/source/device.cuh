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
    extern __shared__ __align__(128) unsigned char memory[];
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
