// A runtime made for the tests, in the place of ONNX Runtime: every callback of `ort_abi.h` that the op library uses, each
// of which can be made to fail. It comes in two versions: one with shape references, and one that copies shapes.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "ort_abi.h"

#define CHECK(condition)                                                                        \
  do {                                                                                          \
    if (!(condition)) {                                                                         \
      std::fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, __LINE__, #condition);        \
      std::exit(1);                                                                             \
    }                                                                                           \
  } while (false)

// The opaque objects of this runtime.
namespace jr::ort {
struct Status {
  std::string message;
};
struct TensorTypeAndShapeInfo {
  std::vector<std::int64_t> dims;
  std::vector<const char*> names;
  std::vector<std::string> set = {};  // what SetSymbolicDimensions was given, copied as ONNX Runtime does
};
struct Value {
  std::vector<std::int64_t> dims;
  void* data;
};
struct KernelInfo {
  std::map<std::string, float> attributes;
  std::vector<std::string> inputs;
  std::string name;
};
struct KernelContext {
  std::vector<const Value*> inputs;
  Value* output;
  std::vector<std::int64_t> asked;
};
struct ShapeInferContext {
  TensorTypeAndShapeInfo* input;
  TensorTypeAndShapeInfo output;
  const TensorTypeAndShapeInfo* given;
};
struct SessionOptions {
  std::vector<CustomOpDomain*> domains;
};
struct CustomOpDomain {
  std::vector<const CustomOp*> ops;
};
}  // namespace jr::ort

using namespace jr::ort;

namespace {

thread_local int calls_until_failure = -1;  // negative: never

Status* step() {
  if (calls_until_failure >= 0 && calls_until_failure-- == 0) return new Status{"made to fail"};
  return nullptr;
}

Status* copy_text(const std::string& text, char* out, std::size_t* size) {
  if (out != nullptr) {
    CHECK(*size >= text.size() + 1);
    std::memcpy(out, text.c_str(), text.size() + 1);
  }
  *size = text.size() + 1;
  return nullptr;
}

Api make_api() {
  Api api{};
  api.CreateStatus = [](int, const char* message) { return new Status{message}; };
  api.ReleaseStatus = [](Status* status) { delete status; };
  api.CreateCustomOpDomain = [](const char* name, CustomOpDomain** out) {
    CHECK(std::string(name) == "jr_onnx");
    Status* status = step();
    if (status == nullptr) *out = new CustomOpDomain;
    return status;
  };
  api.CustomOpDomain_Add = [](CustomOpDomain* domain, const CustomOp* op) {
    domain->ops.push_back(op);
    return step();
  };
  api.AddCustomOpDomain = [](SessionOptions* options, CustomOpDomain* domain) {
    options->domains.push_back(domain);
    return step();
  };
  api.ReleaseCustomOpDomain = [](CustomOpDomain* domain) { delete domain; };
  api.GetTensorMutableData = [](Value* value, void** out) {
    *out = value->data;
    return step();
  };
  api.CreateTensorTypeAndShapeInfo = [](TensorTypeAndShapeInfo** out) {
    Status* status = step();
    if (status == nullptr) *out = new TensorTypeAndShapeInfo;
    return status;
  };
  api.SetTensorElementType = [](TensorTypeAndShapeInfo*, int) { return step(); };
  api.SetDimensions = [](TensorTypeAndShapeInfo* info, const std::int64_t* dims, std::size_t count) {
    info->dims.assign(dims, dims + count);
    return step();
  };
  api.GetDimensionsCount = [](const TensorTypeAndShapeInfo* info, std::size_t* out) {
    *out = info->dims.size();
    return step();
  };
  api.GetDimensions = [](const TensorTypeAndShapeInfo* info, std::int64_t* dims, std::size_t count) {
    CHECK(count == info->dims.size());
    for (std::size_t i = 0; i < count; ++i) dims[i] = info->dims[i];
    return step();
  };
  api.GetSymbolicDimensions = [](const TensorTypeAndShapeInfo* info, const char** names, std::size_t count) {
    CHECK(count == info->names.size());
    for (std::size_t i = 0; i < count; ++i) names[i] = info->names[i];
    return step();
  };
  api.SetSymbolicDimensions = [](TensorTypeAndShapeInfo* info, const char** names, std::size_t count) {
    info->set.assign(names, names + count);
    for (std::size_t i = 0; i < count; ++i) info->names[i] = info->set[i].c_str();
    return step();
  };
  api.GetTensorTypeAndShape = [](const Value* value, TensorTypeAndShapeInfo** out) {
    Status* status = step();
    if (status == nullptr) *out = new TensorTypeAndShapeInfo{value->dims, {}};
    return status;
  };
  api.ReleaseTensorTypeAndShapeInfo = [](TensorTypeAndShapeInfo* info) { delete info; };
  api.GetTensorElementTypeAndShapeDataReference = [](const Value* value, int*, const std::int64_t** dims,
                                                     std::size_t* count) {
    *dims = value->dims.empty() ? nullptr : value->dims.data();
    *count = value->dims.size();
    return step();
  };
  api.KernelInfoGetAttribute_float = [](const KernelInfo* info, const char* name, float* out) -> Status* {
    const auto found = info->attributes.find(name);
    if (found == info->attributes.end()) return new Status{"no such attribute"};
    *out = found->second;
    return nullptr;
  };
  api.KernelInfoGetAttribute_int64 = [](const KernelInfo* info, const char* name, std::int64_t* out) -> Status* {
    const auto found = info->attributes.find(name);
    if (found == info->attributes.end()) return new Status{"no such attribute"};
    *out = static_cast<std::int64_t>(found->second);
    return nullptr;
  };
  api.KernelInfo_GetInputCount = [](const KernelInfo* info, std::size_t* out) {
    *out = info->inputs.size();
    return step();
  };
  api.KernelInfo_GetInputName = [](const KernelInfo* info, std::size_t index, char* out, std::size_t* size) {
    Status* status = step();
    return status != nullptr ? status : copy_text(info->inputs.at(index), out, size);
  };
  api.KernelInfo_GetNodeName = [](const KernelInfo* info, char* out, std::size_t* size) {
    Status* status = step();
    return status != nullptr ? status : copy_text(info->name, out, size);
  };
  api.KernelContext_GetInput = [](const KernelContext* context, std::size_t index, const Value** out) {
    *out = context->inputs.at(index);
    return step();
  };
  api.KernelContext_GetOutput = [](KernelContext* context, std::size_t, const std::int64_t* dims, std::size_t count,
                                   Value** out) {
    context->asked.assign(dims, dims + count);
    *out = context->output;
    return step();
  };
  api.KernelContext_ParallelFor = [](const KernelContext*, void (*fn)(void*, std::size_t), std::size_t total,
                                     std::size_t, void* data) {
    std::thread odd([&] {
      for (std::size_t i = 1; i < total; i += 2) fn(data, i);
    });
    for (std::size_t i = 0; i < total; i += 2) fn(data, i);
    odd.join();
    return step();
  };
  api.ShapeInferContext_GetInputTypeShape = [](const ShapeInferContext* context, std::size_t,
                                               TensorTypeAndShapeInfo** out) {
    *out = context->input;
    return step();
  };
  api.ShapeInferContext_SetOutputTypeShape = [](const ShapeInferContext* context, std::size_t,
                                                const TensorTypeAndShapeInfo* info) {
    auto* mutable_context = const_cast<ShapeInferContext*>(context);
    mutable_context->given = info;
    mutable_context->output = *info;
    return step();
  };
  return api;
}

// Two runtimes: one with shape references, one that copies shapes.
Api new_api = make_api();
Api old_api = make_api();

const ApiBase kNewBase = {[](std::uint32_t) -> const Api* { return &new_api; }, [] { return "1.31.1"; }};
const ApiBase kOldBase = {[](std::uint32_t version) -> const Api* { return version <= 18 ? &old_api : nullptr; },
                          [] { return "1.18.0"; }};
const ApiBase kTooOldBase = {[](std::uint32_t version) -> const Api* { return version <= 17 ? &old_api : nullptr; },
                             [] { return "1.17.0"; }};

}  // namespace
