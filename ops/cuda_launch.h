// How a kernel is launched. The tests compile the kernels for the CPU with a CUDA runtime of their own, which brings its
// own JR_LAUNCH; everything else goes through nvcc.
#pragma once

#include <cuda_runtime.h>

#ifndef JR_LAUNCH
#define JR_LAUNCH(kernel, blocks, threads, stream, ...) kernel<<<blocks, threads, 0, stream>>>(__VA_ARGS__)
#endif

namespace jr {

// Null, or the text of an error; it needs no freeing.
inline const char* text_of(cudaError_t error) { return error == cudaSuccess ? nullptr : cudaGetErrorString(error); }

}  // namespace jr
