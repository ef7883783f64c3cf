// One operator as ONNX Runtime sees it: the table of callbacks, plus what the callbacks need to know.
#pragma once

#include <exception>
#include <memory>

#include "runtime.h"

namespace jr {

struct OpEntry : ort::CustomOp {
  const Runtime* runtime;
  const char* provider;  // null: CPU
};

// Runs `body`, which returns a Status*, and turns an exception into a status: none may cross the C interface.
template <class Body>
ort::Status* guarded(const ort::Api* api, Body body) {
  try {
    return body();
  } catch (const std::exception& error) {
    return api->CreateStatus(ort::kFail, error.what());
  }
}

// Fills everything that depends on the kernel class alone. `Kernel` is made from a Runtime, then `initialize(info)`
// reads the attributes, and `compute(context)` is called by any number of threads at once.
template <class Kernel>
OpEntry kernel_entry(const Runtime& runtime, const char* provider) {
  OpEntry entry{};
  entry.version = ort::kMinimumApi;
  entry.runtime = &runtime;
  entry.provider = provider;
  entry.GetExecutionProviderType = [](const ort::CustomOp* op) { return static_cast<const OpEntry*>(op)->provider; };
  entry.GetOutputTypeCount = [](const ort::CustomOp*) { return std::size_t{1}; };
  entry.GetOutputCharacteristic = [](const ort::CustomOp*, std::size_t) { return ort::kRequired; };
  entry.GetInputMemoryType = [](const ort::CustomOp*, std::size_t) { return ort::kDefaultMemory; };
  entry.GetStartVersion = [](const ort::CustomOp*) { return 1; };
  entry.CreateKernelV2 = [](const ort::CustomOp* op, const ort::Api* api, const ort::KernelInfo* info,
                            void** out) -> ort::Status* {
    *out = nullptr;
    return guarded(api, [&]() -> ort::Status* {
      auto kernel = std::make_unique<Kernel>(*static_cast<const OpEntry*>(op)->runtime);
      ort::Status* status = kernel->initialize(info);
      if (status == nullptr) *out = kernel.release();
      return status;
    });
  };
  entry.KernelComputeV2 = [](void* kernel, ort::KernelContext* context) -> ort::Status* {
    auto* self = static_cast<Kernel*>(kernel);
    return guarded(self->api(), [&] { return self->compute(context); });
  };
  entry.KernelDestroy = [](void* kernel) { delete static_cast<Kernel*>(kernel); };
  return entry;
}

}  // namespace jr
