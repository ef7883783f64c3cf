// The entry point that ONNX Runtime calls when the library is registered with session options.
#include <list>
#include <mutex>
#include <vector>

#include "bias_jump_relu.h"
#include "draw_kappa.h"
#include "jump_relu_cpu.h"
#include "runtime.h"
#ifdef JR_WITH_CUDA
#include "jump_relu_cuda.h"
#endif

namespace jr {
namespace {

// What one runtime holds pointers to: never freed, because its sessions may outlive any moment we could choose.
struct Registration {
  Runtime runtime;
  std::vector<OpEntry> entries;
  ort::CustomOpDomain* domain = nullptr;
};

ort::Status* build(Registration* registration) {
  const ort::Api* api = registration->runtime.api;
  add_cpu_entries(registration->runtime, &registration->entries);
  add_cpu_bias_entries(registration->runtime, &registration->entries);
#ifdef JR_WITH_CUDA
  add_cuda_entries(registration->runtime, &registration->entries);
#endif
  registration->entries.push_back(cpu_draw_kappa_entry(registration->runtime));
  ort::Status* status = api->CreateCustomOpDomain("jr_onnx", &registration->domain);
  for (const OpEntry& entry : registration->entries) {
    if (status == nullptr) status = api->CustomOpDomain_Add(registration->domain, &entry);
  }
  if (status != nullptr && registration->domain != nullptr) api->ReleaseCustomOpDomain(registration->domain);
  return status;
}

// One registration per runtime in the process, however many sessions it makes.
ort::Status* find_or_build(const Runtime& runtime, Registration** out) {
  static std::mutex mutex;
  static auto* const all = new std::list<Registration>;
  const std::lock_guard<std::mutex> lock(mutex);
  for (Registration& known : *all) {
    if (known.runtime.api == runtime.api) {
      *out = &known;
      return nullptr;
    }
  }
  Registration& added = all->emplace_back();
  added.runtime = runtime;
  ort::Status* status = build(&added);
  if (status != nullptr) all->pop_back();
  *out = status == nullptr ? &added : nullptr;
  return status;
}

}  // namespace
}  // namespace jr

extern "C" __attribute__((visibility("default"))) jr::ort::Status* RegisterCustomOps(
    jr::ort::SessionOptions* options, const jr::ort::ApiBase* base) {
  jr::Runtime runtime;
  jr::ort::Status* status = jr::negotiate(*base, &runtime);
  if (status != nullptr || runtime.api == nullptr) return status;
  return jr::guarded(runtime.api, [&]() -> jr::ort::Status* {
    jr::Registration* registration = nullptr;
    jr::ort::Status* failed = jr::find_or_build(runtime, &registration);
    return failed != nullptr ? failed : runtime.api->AddCustomOpDomain(options, registration->domain);
  });
}
