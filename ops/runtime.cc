#include "runtime.h"

#include <cstdio>

namespace jr {
namespace {

std::string too_old_message(const char* version) {
  return "the jr_onnx op library needs ONNX Runtime 1." + std::to_string(ort::kMinimumApi) +
         " or newer, this one is " + (version == nullptr ? "of unknown version" : version) +
         "; upgrade onnxruntime or use a lowering without the custom op";
}

}  // namespace

unsigned minor_version(const char* version) {
  unsigned major = 0;
  unsigned minor = 0;
  if (version == nullptr || std::sscanf(version, "%u.%u", &major, &minor) != 2) return 0;
  return major > 1 ? ~0u : minor;
}

ort::Status* negotiate(const ort::ApiBase& base, Runtime* out) {
  *out = {};
  const char* version = base.GetVersionString();
  const unsigned minor = minor_version(version);
  // The version is looked at first because GetApi() prints a complaint of its own for a version it does not have.
  const bool known_too_old = minor != 0 && minor < ort::kMinimumApi;
  out->api = known_too_old ? nullptr : base.GetApi(ort::kMinimumApi);
  if (out->api == nullptr) {
    const std::string message = too_old_message(version);
    const ort::Api* oldest = base.GetApi(ort::kOldestApi);
    if (oldest != nullptr) return fail(oldest, ort::kNotImplemented, message);
    std::fprintf(stderr, "jr_onnx: %s\n", message.c_str());
    return nullptr;
  }
  if (minor >= ort::kShapeReferenceApi) {
    const ort::Api* newer = base.GetApi(ort::kShapeReferenceApi);
    if (newer != nullptr) *out = {newer, true};
  }
  return nullptr;
}

std::string describe_node(const ort::Api* api, const ort::KernelInfo* info, const char* op_type) {
  std::string text = std::string(op_type) + " node";
  std::size_t size = 0;
  ort::Status* status = api->KernelInfo_GetNodeName(info, nullptr, &size);
  if (status == nullptr && size > 1) {
    std::string name(size, '\0');
    status = api->KernelInfo_GetNodeName(info, name.data(), &size);
    name.resize(size - 1);  // the size counts the terminator
    if (status == nullptr) text += " '" + name + "'";
  }
  if (status != nullptr) api->ReleaseStatus(status);
  return text;
}

}  // namespace jr
