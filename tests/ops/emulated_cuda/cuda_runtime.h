// A CUDA runtime for tests: device memory is host memory, and a kernel is a loop over its threads on the CPU.
//
// Found before CUDA's own header by the include path, it lets g++ compile the .cu files as they are, with sanitizers
// too. Launches run at once, or on the stream of the fake CUDA runtime (fake_cuda/cudart.cc) where that is loaded, so
// that they are captured and replayed as on a GPU. It says nothing of speed, and threads of a block do not interleave.
#pragma once

#include <dlfcn.h>

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <functional>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(threads)

struct alignas(16) int4 {
  int x, y, z, w;
};

struct Index {
  unsigned x = 0;
};

inline thread_local Index blockIdx, threadIdx, gridDim;

enum cudaError_t { cudaSuccess = 0, cudaErrorMemoryAllocation = 2 };
using cudaStream_t = void*;

inline cudaError_t cudaMalloc(void** out, std::size_t size) {
  *out = std::malloc(size);
  return *out == nullptr ? cudaErrorMemoryAllocation : cudaSuccess;
}
inline cudaError_t cudaFree(void* memory) {
  std::free(memory);
  return cudaSuccess;
}
inline cudaError_t cudaMemset(void* memory, int value, std::size_t size) {
  std::memset(memory, value, size);
  return cudaSuccess;
}
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t) { return "out of memory"; }
inline unsigned long long atomicAdd(unsigned long long* address, unsigned long long value) {
  return __atomic_fetch_add(address, value, __ATOMIC_RELAXED);
}

namespace emulated_cuda {

inline unsigned last_blocks = 0;    // what the latest launch asked for
inline unsigned forced_blocks = 0;  // the grid to use instead, so that blocks loop as in a huge tensor
inline bool backwards = false;      // threads in reverse: no result may depend on their order

inline void run(unsigned blocks, unsigned threads, const std::function<void()>& thread) {
  gridDim.x = blocks;
  for (unsigned block = 0; block < blocks; ++block) {
    blockIdx.x = backwards ? blocks - 1 - block : block;
    for (unsigned index = 0; index < threads; ++index) {
      threadIdx.x = backwards ? threads - 1 - index : index;
      thread();
    }
  }
}

using Enqueue = void (*)(void* stream, const std::function<void()>& work);

// The queue of the fake runtime in this process, or null.
inline Enqueue find_queue() {
  void* library = dlopen("libcudart.so.13", RTLD_LAZY | RTLD_NOLOAD);
  return library == nullptr ? nullptr : reinterpret_cast<Enqueue>(dlsym(library, "fake_cuda_enqueue"));
}

template <class Kernel, class... Arguments>
void launch(Kernel kernel, unsigned blocks, unsigned threads, void* stream, Arguments... arguments) {
  static const Enqueue enqueue = find_queue();
  last_blocks = blocks;
  if (forced_blocks != 0) blocks = forced_blocks;
  const std::function<void()> work = [=] { run(blocks, threads, [=] { kernel(arguments...); }); };
  if (enqueue != nullptr) {
    enqueue(stream, work);
  } else {
    work();
  }
}

}  // namespace emulated_cuda

#define JR_LAUNCH(kernel, blocks, threads, stream, ...) \
  ::emulated_cuda::launch(kernel, blocks, threads, stream, __VA_ARGS__)
