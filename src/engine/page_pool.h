// SPDX-License-Identifier: Apache-2.0
// Pages of the KV cache: how many use each, and which prefixes of prompts they hold.
//
// A page of a prompt is known by its tokens and by the page before it, so that known pages make a
// radix tree, as in SGLang's RadixAttention. A page that nobody uses stays known until its memory
// is needed: those not used for longest go first. Whoever uses a page uses those before it, and
// releases it before them; so a page goes before the one that it is known by.

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <list>
#include <span>
#include <unordered_map>
#include <vector>

#include "kernels/kernels.h"

namespace millstream {

/// For one thread.
class PagePool {
 public:
  static constexpr std::int32_t kNoPage = -1;

  explicit PagePool(std::int64_t num_pages);

  /// Pages that nobody uses.
  std::int64_t num_free() const { return std::ssize(free_); }
  /// A page for new content, with one user. REQUIRES: num_free() > 0.
  std::int32_t Take();
  std::int32_t users(std::int32_t page) const { return At(page).users; }
  /// One user more of a known page.
  void Use(std::int32_t page);
  void Release(std::int32_t page);

  struct Match {
    std::vector<std::int32_t> pages;
    bool is_next_coming = false;  // somebody is computing the page after those
  };
  /// The pages that hold the head of some tokens, as many as are known.
  Match Find(std::span<const std::int32_t> tokens) const;
  /// What `page` will hold: these kPageTokens tokens after page `before`, or as the first. Does
  /// nothing if a page for that is known already, or coming, or if `before` was not announced.
  void Announce(std::int32_t before, std::span<const std::int32_t> tokens, std::int32_t page);
  /// An announced page holds its tokens. Does nothing for others.
  void SetReady(std::int32_t page);

 private:
  struct Key {
    std::int32_t before = kNoPage;
    std::array<std::int32_t, kernels::kPageTokens> tokens{};
    friend bool operator==(const Key&, const Key&) = default;
  };
  struct KeyHash {
    std::size_t operator()(const Key& key) const;
  };
  struct Page {
    std::int32_t users = 0;
    bool is_announced = false, is_ready = false;
    Key key;
    std::list<std::int32_t>::iterator place;  // in free_, if nobody uses it
  };
  using Index = std::unordered_map<Key, std::int32_t, KeyHash>;

  static Key KeyOf(std::int32_t before, std::span<const std::int32_t> tokens);
  Page& At(std::int32_t page) { return pages_[static_cast<std::size_t>(page)]; }
  const Page& At(std::int32_t page) const { return pages_[static_cast<std::size_t>(page)]; }
  void Forget(Page& page);

  std::vector<Page> pages_;
  std::list<std::int32_t> free_;  // the first goes first
  Index index_;                   // announced pages
};

}  // namespace millstream
