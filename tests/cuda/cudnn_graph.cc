// The part of cuDNN's graph interface that ONNX Runtime's convolutions go through: descriptors that remember what they
// were told, one engine, plans that do nothing. The numbers are those of cuDNN's header cudnn_graph.h.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <map>
#include <vector>

namespace {

constexpr int kHeuristicResults = 202;      // CUDNN_ATTR_ENGINEHEUR_RESULTS
constexpr int kConfigurationEngine = 300;   // CUDNN_ATTR_ENGINECFG_ENGINE
constexpr int kPlanConfiguration = 401;     // CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG
constexpr int kPlanWorkspace = 402;         // CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE
constexpr int kEngineCount = 802;           // CUDNN_ATTR_OPERATIONGRAPH_ENGINE_GLOBAL_COUNT
constexpr int kEngineIndex = 1301;          // CUDNN_ATTR_ENGINE_GLOBAL_INDEX

struct Descriptor {
  std::map<int, std::vector<char>> attributes;
};

std::size_t size_of(int type) {
  switch (type) {
    case 2: case 24: return 1;                              // boolean, char
    case 0: case 3: case 5: case 6: case 15: return 8;      // handle, int64, double, pointer, descriptor
    default: return 4;                                      // float, int32, enumerations
  }
}

}  // namespace

extern "C" {

int cudnnBackendCreateDescriptor(int, void** out) {
  *out = new Descriptor;
  return 0;
}
int cudnnBackendDestroyDescriptor(void* descriptor) {
  delete static_cast<Descriptor*>(descriptor);
  return 0;
}
int cudnnBackendSetAttribute(void* descriptor, int name, int type, std::int64_t count, const void* values) {
  const auto* bytes = static_cast<const char*>(values);
  static_cast<Descriptor*>(descriptor)->attributes[name].assign(bytes, bytes + size_of(type) * count);
  return 0;
}
int cudnnBackendGetAttribute(void* descriptor, int name, int type, std::int64_t requested, std::int64_t* count,
                             void* values) {
  std::int64_t unused = 0;
  std::int64_t& found = count == nullptr ? unused : *count;
  found = 1;
  if (name == kHeuristicResults || name == kConfigurationEngine || name == kPlanConfiguration) return 0;
  if (name == kEngineCount || name == kEngineIndex || name == kPlanWorkspace) {
    const std::int64_t value = name == kEngineCount ? 1 : 0;
    if (values != nullptr) std::memcpy(values, &value, sizeof value);
    return 0;
  }
  const auto& attributes = static_cast<Descriptor*>(descriptor)->attributes;
  const auto known = attributes.find(name);
  if (known != attributes.end()) {
    found = static_cast<std::int64_t>(known->second.size() / size_of(type));
    if (values != nullptr) std::memcpy(values, known->second.data(), std::min(found, requested) * size_of(type));
    return 0;
  }
  const bool scalar = requested == 1 && (type == 2 || type == 3 || type == 23);
  found = scalar ? 1 : 0;
  if (scalar && values != nullptr) std::memset(values, 0, size_of(type));
  return 0;
}
int cudnnBackendFinalize(void*) { return 0; }
int cudnnBackendExecute(void*, void*, void*) { return 0; }

}  // extern "C"
