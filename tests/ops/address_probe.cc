// The op library behind a runtime that notes the buffers each run gets: the whole library is linked in with its entry
// point renamed, and this entry point hands it a table in which GetTensorMutableData is watched.
#include <atomic>
#include <cstdint>

#include "ort_abi.h"

using jr::ort::Api;
using jr::ort::ApiBase;

extern "C" jr::ort::Status* inner_register(jr::ort::SessionOptions* options, const ApiBase* base);

namespace {

const ApiBase* real_base = nullptr;
const Api* real_api = nullptr;
Api watched_api;
ApiBase watched_base;
std::atomic<int> in_place{0};
std::atomic<int> apart{0};
thread_local void* previous = nullptr;
thread_local bool has_previous = false;

// The library asks for the data of the input and then of the output, once each in a run.
jr::ort::Status* watch_data(jr::ort::Value* value, void** out) {
  jr::ort::Status* status = real_api->GetTensorMutableData(value, out);
  if (has_previous) (*out == previous ? in_place : apart)++;
  previous = *out;
  has_previous = !has_previous;
  return status;
}

const Api* give_watched(std::uint32_t version) {
  return real_base->GetApi(version) == nullptr ? nullptr : &watched_api;
}

const char* give_version() { return real_base->GetVersionString(); }

}  // namespace

extern "C" {

jr::ort::Status* RegisterCustomOps(jr::ort::SessionOptions* options, const ApiBase* base) {
  real_base = base;
  real_api = base->GetApi(jr::ort::kMinimumApi);
  watched_api = *base->GetApi(jr::ort::kShapeReferenceApi);
  watched_api.GetTensorMutableData = watch_data;
  watched_base = {give_watched, give_version};
  return inner_register(options, &watched_base);
}

// Forgets the counts.
void jr_onnx_test_reset() { in_place = apart = 0; }
int jr_onnx_test_in_place() { return in_place; }
int jr_onnx_test_apart() { return apart; }
}
