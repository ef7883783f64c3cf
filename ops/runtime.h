// The runtime that loaded this library, and the errors handed back to it.
#pragma once

#include <string>

#include "ort_abi.h"

namespace jr {

struct Runtime {
  const ort::Api* api = nullptr;
  bool has_shape_reference = false;  // kShapeReferenceApi: shapes are read without an allocation
};

// Asks the runtime for its table. Returns null and fills `out`, or returns the error "too old"; a runtime that does
// not even have the oldest API gets a line on stderr and `out` without a table.
ort::Status* negotiate(const ort::ApiBase& base, Runtime* out);

// Minor version in "1.31.1", 0 where the string is not understood; a major version above 1 is newer than any.
unsigned minor_version(const char* version);

inline ort::Status* fail(const ort::Api* api, int code, const std::string& message) {
  return api->CreateStatus(code, message.c_str());
}

// Name of the node for messages: "JumpRelu node 'relu_3'".
std::string describe_node(const ort::Api* api, const ort::KernelInfo* info, const char* op_type);

}  // namespace jr
