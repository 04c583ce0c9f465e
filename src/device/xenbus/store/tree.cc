#include "device/xenbus/store/tree.h"

#include <utility>

#include "base/assert.h"
#include "device/xenbus/store/path.h"

namespace bulkhead::device::xenbus::store {
namespace {

std::string_view last_name(std::string_view path) { return path.substr(path.rfind('/') + 1); }

void charge(Accounts& accounts, const Node& node, std::string_view name, int sign) {
  Usage& usage = accounts[node.permissions.front().domain];
  usage.nodes += sign;
  usage.bytes += sign * static_cast<i64>(node_bytes(name.size(), node.value.size(), node.permissions.size()));
}

void uncharge_all(Accounts& accounts, const Node& node, std::string_view name) {
  charge(accounts, node, name, -1);
  for (const auto& [child_name, child] : node.children) uncharge_all(accounts, *child, child_name);
}

// The one that is only ours: a copy where others see it too.
Node& unshare(std::shared_ptr<Node>& node) {
  if (node.use_count() > 1) node = std::make_shared<Node>(*node);
  return *node;
}

}  // namespace

std::size_t node_bytes(std::size_t name, std::size_t value, std::size_t permissions) {
  return sizeof(Node) + name + value + permissions * sizeof(Permission);
}

Tree::Tree() : root_{std::make_shared<Node>()} { root_->permissions = {Permission{kDomainZero, Access::kNone}}; }

const Node* Tree::find(std::string_view path) const { return find_below(*root_, path); }

const Node* Tree::find_below(const Node& top, std::string_view rest) {
  const Node* node = &top;
  for (std::string_view name = next_name(rest); !name.empty(); name = next_name(rest)) {
    const auto child = node->children.find(name);
    if (child == node->children.end()) return nullptr;
    node = child->second.get();
  }
  return node;
}

std::shared_ptr<const Node> Tree::share(std::string_view path) const {
  if (path == "/") return root_;
  const Node* parent = find(parent_of(path));
  if (parent == nullptr) return nullptr;
  const auto child = parent->children.find(last_name(path));
  return child == parent->children.end() ? nullptr : child->second;
}

Tree::Nearest Tree::nearest(std::string_view path) const {
  Nearest result{root_.get(), "/", {}, 0, 0};
  std::string_view rest = path;
  for (std::string_view name = next_name(rest); !name.empty(); name = next_name(rest)) {
    const std::string_view here = path.substr(0, path.size() - rest.size());
    if (result.missing.empty()) {
      const auto child = result.node->children.find(name);
      if (child != result.node->children.end()) {
        result.node = child->second.get();
        result.path = here;
        continue;
      }
      result.missing = here;
    }
    ++result.missing_nodes;
    result.missing_bytes += node_bytes(name.size(), 0, result.node->permissions.size());
  }
  return result;
}

Node& Tree::own(std::string_view path, u64 generation) {
  Node* node = &unshare(root_);
  node->tree_generation = generation;
  for (std::string_view name = next_name(path); !name.empty(); name = next_name(path)) {
    const auto child = node->children.find(name);
    BH_ASSERT(child != node->children.end());
    node = &unshare(child->second);
    node->tree_generation = generation;
  }
  return *node;
}

void Tree::create(std::string_view path, Domid who, u64 generation, Accounts& accounts) {
  const Nearest start = nearest(path);
  if (start.missing.empty()) return;
  Node* node = &own(start.path, generation);
  std::string_view rest = path.substr(parent_of(start.missing).size());
  for (std::string_view name = next_name(rest); !name.empty(); name = next_name(rest)) {
    auto child = std::make_shared<Node>();
    child->permissions = node->permissions;
    if (who != kDomainZero) child->permissions.front().domain = who;
    child->generation = child->list_generation = child->tree_generation = generation;
    charge(accounts, *child, name, +1);
    node->list_generation = generation;
    node = node->children.emplace(name, std::move(child)).first->second.get();
  }
}

void Tree::set_value(std::string_view path, std::string_view value, u64 generation, Accounts& accounts) {
  Node& node = own(path, generation);
  charge(accounts, node, last_name(path), -1);
  node.value = value;
  node.generation = generation;
  charge(accounts, node, last_name(path), +1);
}

void Tree::set_permissions(std::string_view path, Permissions permissions, u64 generation, Accounts& accounts) {
  Node& node = own(path, generation);
  charge(accounts, node, last_name(path), -1);
  node.permissions = std::move(permissions);
  node.generation = generation;
  charge(accounts, node, last_name(path), +1);
}

std::shared_ptr<const Node> Tree::remove(std::string_view path, u64 generation, Accounts& accounts) {
  Node& parent = own(parent_of(path), generation);
  const auto child = parent.children.find(last_name(path));
  BH_ASSERT(child != parent.children.end());
  std::shared_ptr<const Node> gone = std::move(child->second);
  parent.children.erase(child);
  parent.list_generation = generation;
  uncharge_all(accounts, *gone, last_name(path));
  return gone;
}

}  // namespace bulkhead::device::xenbus::store
