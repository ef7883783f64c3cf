// A CUDA runtime for tests, under the name and with the symbols of the real one: it lets the CUDA provider of
// onnxruntime-gpu run on a machine without a GPU.
//
// Device memory is host memory, copies are memcpy, and streams run at once. A stream that captures records what is
// queued; launching the graph runs it again. Kernels of ONNX Runtime do nothing; those of the op library, compiled with
// emulated_cuda/cuda_runtime.h, do their work. So it tells whether the host's side is right: where nodes are placed, what
// is copied, bound, captured and replayed. It tells nothing of speed, nor of what a GPU computes.
//
// FAKE_CUDA_FAIL=NAME[:N] makes the Nth call (the first, if not said) of an interface below fail, and later ones too.
// Functions that are neither here nor of consequence are made by stubs.py and return success.
#include <cuda_runtime.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace {

using Work = std::function<void()>;
using Clock = std::chrono::steady_clock;

struct Graph {
  std::vector<Work> work;
};

struct Stream {
  bool capturing = false;
  bool spoiled = false;  // something was asked for that a capture cannot hold
  Graph graph;
};

struct Memory {
  std::size_t size;
  cudaMemoryType type;
};

Stream the_default_stream;
std::mutex memory_lock;
std::map<const char*, Memory> memory;
std::atomic<long> launches{0};
std::atomic<long> replays{0};

Stream& of(cudaStream_t stream) {
  const bool own = stream != nullptr && stream != cudaStreamLegacy && stream != cudaStreamPerThread;
  return own ? *reinterpret_cast<Stream*>(stream) : the_default_stream;
}

void queue(cudaStream_t stream, Work work) {
  Stream& target = of(stream);
  if (target.capturing) {
    target.graph.work.push_back(std::move(work));
  } else {
    work();
  }
}

bool must_fail(const char* name) {
  static const std::string wish = std::getenv("FAKE_CUDA_FAIL") == nullptr ? "" : std::getenv("FAKE_CUDA_FAIL");
  static std::atomic<int> calls{0};
  const std::size_t colon = wish.find(':');
  if (wish.substr(0, colon) != name) return false;
  const int first = colon == std::string::npos ? 1 : std::atoi(wish.c_str() + colon + 1);
  return ++calls >= first;
}

cudaError_t allocate(void** out, std::size_t size, cudaMemoryType type) {
  if (must_fail("cudaMalloc")) return cudaErrorMemoryAllocation;
  if (posix_memalign(out, 256, size == 0 ? 256 : size) != 0) return cudaErrorMemoryAllocation;
  std::memset(*out, 0xEE, size);  // what nobody wrote is noticed
  const std::lock_guard<std::mutex> lock(memory_lock);
  memory[static_cast<const char*>(*out)] = {size, type};
  return cudaSuccess;
}

cudaError_t release(void* address) {
  if (address == nullptr) return cudaSuccess;
  {
    const std::lock_guard<std::mutex> lock(memory_lock);
    memory.erase(static_cast<const char*>(address));
  }
  std::free(address);
  return cudaSuccess;
}

// What a capture cannot hold spoils it, as with the real runtime.
cudaError_t wait(cudaStream_t stream) {
  Stream& target = of(stream);
  if (!target.capturing) return cudaSuccess;
  target.spoiled = true;
  return cudaErrorStreamCaptureUnsupported;
}

cudaError_t launch(cudaStream_t stream) {
  if (must_fail("cudaLaunchKernel")) return cudaErrorLaunchOutOfResources;
  ++launches;
  queue(stream, [] {});
  return cudaSuccess;
}

}  // namespace

extern "C" {

// For the op library of the tests: see emulated_cuda/cuda_runtime.h.
void fake_cuda_enqueue(void* stream, const Work& work) {
  ++launches;
  queue(static_cast<cudaStream_t>(stream), work);
}
long fake_cuda_launches() { return launches; }
long fake_cuda_replays() { return replays; }

cudaError_t cudaMalloc(void** out, std::size_t size) { return allocate(out, size, cudaMemoryTypeDevice); }
cudaError_t cudaMallocHost(void** out, std::size_t size) { return allocate(out, size, cudaMemoryTypeHost); }
cudaError_t cudaHostAlloc(void** out, std::size_t size, unsigned) { return allocate(out, size, cudaMemoryTypeHost); }
cudaError_t cudaMallocFromPoolAsync(void** out, std::size_t size, cudaMemPool_t, cudaStream_t) {
  return allocate(out, size, cudaMemoryTypeDevice);
}
cudaError_t cudaFree(void* address) { return release(address); }
cudaError_t cudaFreeAsync(void* address, cudaStream_t) { return release(address); }
cudaError_t cudaFreeHost(void* address) { return release(address); }
cudaError_t cudaMemGetInfo(std::size_t* available, std::size_t* total) {
  *available = *total = std::size_t{80} << 30;
  return cudaSuccess;
}
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* out, const void* address) {
  *out = {};
  out->type = cudaMemoryTypeUnregistered;
  const auto* at = static_cast<const char*>(address);
  const std::lock_guard<std::mutex> lock(memory_lock);
  auto next = memory.upper_bound(at);
  if (next == memory.begin()) return cudaSuccess;
  const auto& [start, block] = *--next;
  if (at >= start + block.size) return cudaSuccess;
  out->type = block.type;
  out->devicePointer = const_cast<void*>(address);
  if (block.type == cudaMemoryTypeHost) out->hostPointer = const_cast<void*>(address);
  return cudaSuccess;
}

cudaError_t cudaMemcpy(void* target, const void* source, std::size_t size, cudaMemcpyKind) {
  std::memmove(target, source, size);
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* target, const void* source, std::size_t size, cudaMemcpyKind, cudaStream_t stream) {
  if (must_fail("cudaMemcpyAsync")) return cudaErrorIllegalAddress;
  queue(stream, [=] { std::memmove(target, source, size); });
  return cudaSuccess;
}
cudaError_t cudaMemcpy2DAsync(void* target, std::size_t target_pitch, const void* source, std::size_t source_pitch,
                              std::size_t width, std::size_t height, cudaMemcpyKind, cudaStream_t stream) {
  queue(stream, [=] {
    for (std::size_t row = 0; row < height; ++row) {
      std::memmove(static_cast<char*>(target) + row * target_pitch,
                   static_cast<const char*>(source) + row * source_pitch, width);
    }
  });
  return cudaSuccess;
}
cudaError_t cudaMemset(void* target, int value, std::size_t size) {
  std::memset(target, value, size);
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* target, int value, std::size_t size, cudaStream_t stream) {
  queue(stream, [=] { std::memset(target, value, size); });
  return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int* out) {
  *out = 1;
  return must_fail("cudaGetDeviceCount") ? cudaErrorNoDevice : cudaSuccess;
}
cudaError_t cudaGetDevice(int* out) {
  *out = 0;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int) { return must_fail("cudaSetDevice") ? cudaErrorInsufficientDriver : cudaSuccess; }
cudaError_t cudaDriverGetVersion(int* out) {
  *out = 13000;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* out) { return cudaDriverGetVersion(out); }
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* out, int) {
  *out = {};
  std::strcpy(out->name, "fake GPU");
  out->major = 9;
  out->totalGlobalMem = std::size_t{80} << 30;
  out->multiProcessorCount = 132;
  out->sharedMemPerBlock = 48 << 10;
  out->sharedMemPerBlockOptin = 227 << 10;
  out->sharedMemPerMultiprocessor = 228 << 10;
  out->regsPerBlock = 65536;
  out->warpSize = 32;
  out->maxThreadsPerBlock = 1024;
  out->maxThreadsPerMultiProcessor = 2048;
  out->maxThreadsDim[0] = out->maxThreadsDim[1] = 1024;
  out->maxThreadsDim[2] = 64;
  out->maxGridSize[0] = 2147483647;
  out->maxGridSize[1] = out->maxGridSize[2] = 65535;
  out->l2CacheSize = 50 << 20;
  out->totalConstMem = 65536;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* out, cudaDeviceAttr attribute, int) {
  cudaDeviceProp properties;
  cudaGetDeviceProperties(&properties, 0);
  switch (attribute) {
    case cudaDevAttrComputeCapabilityMajor: *out = properties.major; break;
    case cudaDevAttrComputeCapabilityMinor: *out = properties.minor; break;
    case cudaDevAttrMultiProcessorCount: *out = properties.multiProcessorCount; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *out = static_cast<int>(properties.sharedMemPerBlockOptin); break;
    case cudaDevAttrMaxThreadsPerBlock: *out = properties.maxThreadsPerBlock; break;
    case cudaDevAttrWarpSize: *out = properties.warpSize; break;
    default: *out = 1;
  }
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* out, unsigned) {
  *out = reinterpret_cast<cudaStream_t>(new Stream);
  return cudaSuccess;
}
cudaError_t cudaStreamCreate(cudaStream_t* out) { return cudaStreamCreateWithFlags(out, 0); }
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  if (&of(stream) != &the_default_stream) delete &of(stream);
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) { return wait(stream); }
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  of(stream).graph.work.clear();
  of(stream).capturing = true;
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* out) {
  Stream& target = of(stream);
  const bool spoiled = std::exchange(target.spoiled, false);
  target.capturing = false;
  *out = spoiled ? nullptr : reinterpret_cast<cudaGraph_t>(new Graph(target.graph));
  return spoiled ? cudaErrorStreamCaptureInvalidated : cudaSuccess;
}
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* out) {
  *out = of(stream).capturing ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* out, cudaGraph_t graph, unsigned long long) {
  *out = reinterpret_cast<cudaGraphExec_t>(new Graph(*reinterpret_cast<Graph*>(graph)));
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t) {
  ++replays;
  for (const Work& work : reinterpret_cast<Graph*>(graph)->work) work();
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete reinterpret_cast<Graph*>(graph);
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph) {
  delete reinterpret_cast<Graph*>(graph);
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* out, unsigned) {
  *out = reinterpret_cast<cudaEvent_t>(new Clock::time_point(Clock::now()));
  return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t* out) { return cudaEventCreateWithFlags(out, 0); }
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete reinterpret_cast<Clock::time_point*>(event);
  return cudaSuccess;
}
cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t, unsigned) {
  *reinterpret_cast<Clock::time_point*>(event) = Clock::now();
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  return cudaEventRecordWithFlags(event, stream, 0);
}
cudaError_t cudaEventElapsedTime(float* out, cudaEvent_t begin, cudaEvent_t end) {
  const auto elapsed = *reinterpret_cast<Clock::time_point*>(end) - *reinterpret_cast<Clock::time_point*>(begin);
  *out = std::chrono::duration<float, std::milli>(elapsed).count();
  return cudaSuccess;
}

cudaError_t cudaLaunchKernel(const void*, dim3, dim3, void**, std::size_t, cudaStream_t stream) { return launch(stream); }
cudaError_t __cudaLaunchKernel(cudaKernel_t, dim3, dim3, void**, std::size_t, cudaStream_t stream) {
  return launch(stream);
}
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* configuration, const void*, void**) {
  return launch(configuration->stream);
}
cudaError_t cudaLaunchCooperativeKernel(const void*, dim3, dim3, void**, std::size_t, cudaStream_t stream) {
  return launch(stream);
}
cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* data) {
  queue(stream, [=] { function(data); });
  return cudaSuccess;
}
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* out, const void*) {
  *out = {};
  out->maxThreadsPerBlock = 1024;
  return cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* out, const void*, int, std::size_t, unsigned) {
  *out = 2;
  return cudaSuccess;
}
cudaError_t cudaGetDriverEntryPointByVersion(const char*, void** out, unsigned, unsigned long long,
                                             cudaDriverEntryPointQueryResult* result) {
  *out = nullptr;
  if (result != nullptr) *result = cudaDriverEntryPointSymbolNotFound;
  return cudaErrorNotSupported;
}
cudaError_t cudaMemPoolCreate(cudaMemPool_t* out, const cudaMemPoolProps*) {
  *out = reinterpret_cast<cudaMemPool_t>(new Stream);
  return cudaSuccess;
}
cudaError_t cudaMemPoolDestroy(cudaMemPool_t pool) {
  delete reinterpret_cast<Stream*>(pool);
  return cudaSuccess;
}
cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t, cudaMemPoolAttr, void* out) {
  *static_cast<unsigned long long*>(out) = 0;
  return cudaSuccess;
}
const char* cudaGetErrorName(cudaError_t) { return "fake"; }
const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorNoDevice: return "no CUDA-capable device is detected";
    case cudaErrorInsufficientDriver: return "CUDA driver version is insufficient for CUDA runtime version";
    case cudaErrorLaunchOutOfResources: return "too many resources requested for launch";
    default: return "an error of the fake CUDA runtime";
  }
}

// What nvcc's host code calls: kernels are known by an address that nobody looks at.
struct Configuration {
  dim3 grid, block;
  std::size_t shared;
  void* stream;
};
thread_local Configuration configuration;
unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, std::size_t shared, void* stream) {
  configuration = {grid, block, shared, stream};
  return 0;
}
cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, std::size_t* shared, void* stream) {
  *grid = configuration.grid;
  *block = configuration.block;
  *shared = configuration.shared;
  *static_cast<void**>(stream) = configuration.stream;
  return cudaSuccess;
}
void** __cudaRegisterFatBinary(void*) {
  static void* handle = nullptr;
  return &handle;
}
cudaError_t __cudaGetKernel(cudaKernel_t* out, const void* function) {
  *out = static_cast<cudaKernel_t>(const_cast<void*>(function));
  return cudaSuccess;
}

}  // extern "C"
