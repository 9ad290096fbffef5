// SPDX-License-Identifier: Apache-2.0
#include "engine/page_pool.h"

#include <algorithm>

#include "base/check.h"

namespace millstream {

using kernels::kPageTokens;

PagePool::PagePool(std::int64_t num_pages) : pages_(static_cast<std::size_t>(num_pages)) {
  for (std::int32_t p = 0; p < num_pages; ++p) At(p).place = free_.insert(free_.end(), p);
}

std::int32_t PagePool::Take() {
  MS_CHECK(!free_.empty());
  const std::int32_t number = free_.front();
  free_.pop_front();
  Page& page = At(number);
  Forget(page);
  page.users = 1;
  return number;
}

void PagePool::Use(std::int32_t number) {
  Page& page = At(number);
  if (page.users++ == 0) free_.erase(page.place);
}

// What is not known is of no use to anybody: it goes before what is.
void PagePool::Release(std::int32_t number) {
  Page& page = At(number);
  MS_CHECK(page.users > 0);
  if (--page.users > 0) return;
  if (!page.is_ready) Forget(page);
  page.place = free_.insert(page.is_ready ? free_.end() : free_.begin(), number);
}

PagePool::Match PagePool::Find(std::span<const std::int32_t> tokens) const {
  Match match;
  std::int32_t before = kNoPage;
  for (; tokens.size() >= kPageTokens; tokens = tokens.subspan(kPageTokens)) {
    const auto found = index_.find(KeyOf(before, tokens.first(kPageTokens)));
    if (found == index_.end()) break;
    if (!At(found->second).is_ready) {
      match.is_next_coming = true;
      break;
    }
    before = found->second;
    match.pages.push_back(before);
  }
  return match;
}

void PagePool::Announce(
    std::int32_t before, std::span<const std::int32_t> tokens, std::int32_t number
) {
  if (before != kNoPage && !At(before).is_announced) return;
  const Key key = KeyOf(before, tokens);
  if (!index_.try_emplace(key, number).second) return;
  Page& page = At(number);
  page.is_announced = true;
  page.key = key;
}

void PagePool::SetReady(std::int32_t number) {
  Page& page = At(number);
  page.is_ready = page.is_announced;
}

PagePool::Key PagePool::KeyOf(std::int32_t before, std::span<const std::int32_t> tokens) {
  Key key;
  key.before = before;
  std::copy(tokens.begin(), tokens.end(), key.tokens.begin());
  return key;
}

std::size_t PagePool::KeyHash::operator()(const Key& key) const {
  auto hash = static_cast<std::uint64_t>(key.before);
  for (const std::int32_t token : key.tokens) {
    hash = (hash ^ static_cast<std::uint32_t>(token)) * 0x9e3779b97f4a7c15ULL;
    hash ^= hash >> 32;
  }
  return hash;
}

void PagePool::Forget(Page& page) {
  if (page.is_announced) index_.erase(page.key);
  page.is_announced = page.is_ready = false;
}

}  // namespace millstream
