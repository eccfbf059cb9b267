// The part of libsrtp 3's interface that the mediasoup worker calls, on top of Debian's libsrtp 2.
// libsrtp 3 differs in three ways: a policy is an opaque object with setters, packets are given as separate
// input and output buffers with their sizes, and it knows two more error codes.
#pragma once

// libsrtp 2 has a struct of the name that libsrtp 3 gives to its opaque policy.
#define srtp_policy_t srtp2_policy_t
#include <srtp2/srtp.h>
#undef srtp_policy_t

#include <climits>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>

// Codes beyond the last of libsrtp 2, which never returns them itself.
constexpr auto srtp_err_status_buffer_small = static_cast<srtp_err_status_t>(28);
constexpr auto srtp_err_status_cryptex_err  = static_cast<srtp_err_status_t>(29);

struct mafalda_srtp_policy
{
	srtp2_policy_t policy;
	unsigned char key[SRTP_MAX_KEY_LEN];
};

using srtp_policy_t = mafalda_srtp_policy*;

inline srtp_err_status_t srtp_policy_create(srtp_policy_t* policy)
{
	*policy = new (std::nothrow) mafalda_srtp_policy();

	return *policy ? srtp_err_status_ok : srtp_err_status_alloc_fail;
}

inline void srtp_policy_destroy(srtp_policy_t policy)
{
	if (policy)
	{
		// A plain memset of an object about to be freed may be optimised away.
		auto* key = static_cast<volatile unsigned char*>(policy->key);
		for (size_t i = 0; i < sizeof(policy->key); ++i)
			key[i] = 0;
	}

	delete policy;
}

inline srtp_err_status_t srtp_policy_set_ssrc(srtp_policy_t policy, srtp_ssrc_t ssrc)
{
	policy->policy.ssrc = ssrc;

	return srtp_err_status_ok;
}

inline srtp_err_status_t srtp_policy_set_profile(srtp_policy_t policy, srtp_profile_t profile)
{
	const auto err = srtp_crypto_policy_set_from_profile_for_rtp(&policy->policy.rtp, profile);

	return err ? err : srtp_crypto_policy_set_from_profile_for_rtcp(&policy->policy.rtcp, profile);
}

// Master key identifiers are not supported; the worker passes none.
inline srtp_err_status_t srtp_policy_add_key(
  srtp_policy_t policy,
  const uint8_t* key,
  size_t keyLen,
  const uint8_t* salt,
  size_t saltLen,
  const uint8_t* /*mki*/,
  size_t mkiLen)
{
	if (mkiLen != 0 || keyLen > sizeof(policy->key) || saltLen > sizeof(policy->key) - keyLen)
		return srtp_err_status_bad_param;

	std::memcpy(policy->key, key, keyLen);
	std::memcpy(policy->key + keyLen, salt, saltLen);
	policy->policy.key = policy->key;

	return srtp_err_status_ok;
}

inline srtp_err_status_t srtp_policy_set_allow_repeat_tx(srtp_policy_t policy, bool allow)
{
	policy->policy.allow_repeat_tx = allow;

	return srtp_err_status_ok;
}

inline srtp_err_status_t srtp_policy_set_window_size(srtp_policy_t policy, size_t size)
{
	policy->policy.window_size = size;

	return srtp_err_status_ok;
}

// libsrtp 2 copies the key, so the policy may be destroyed afterwards, as with libsrtp 3.
inline srtp_err_status_t srtp_create(srtp_t* session, srtp_policy_t policy)
{
	return srtp_create(session, &policy->policy);
}

namespace mafalda
{
	// libsrtp 2 works in place and takes lengths as int; `room` is what it may add to the packet.
	template<typename Transform>
	srtp_err_status_t srtpTransform(
	  const uint8_t* in, size_t inLen, uint8_t* out, size_t* outLen, size_t room, Transform transform)
	{
		if (inLen > static_cast<size_t>(INT_MAX) - room || *outLen < inLen + room)
			return srtp_err_status_buffer_small;

		if (in != out)
			std::memmove(out, in, inLen);

		int len        = static_cast<int>(inLen);
		const auto err = transform(out, &len);
		*outLen        = static_cast<size_t>(len);

		return err;
	}
} // namespace mafalda

inline srtp_err_status_t srtp_protect(
  srtp_t session, const uint8_t* in, size_t inLen, uint8_t* out, size_t* outLen, size_t /*mkiIndex*/)
{
	return mafalda::srtpTransform(
	  in, inLen, out, outLen, SRTP_MAX_TRAILER_LEN, [session](void* packet, int* len)
	  { return srtp_protect(session, packet, len); });
}

inline srtp_err_status_t srtp_unprotect(
  srtp_t session, const uint8_t* in, size_t inLen, uint8_t* out, size_t* outLen)
{
	return mafalda::srtpTransform(in, inLen, out, outLen, 0, [session](void* packet, int* len)
	                              { return srtp_unprotect(session, packet, len); });
}

inline srtp_err_status_t srtp_protect_rtcp(
  srtp_t session, const uint8_t* in, size_t inLen, uint8_t* out, size_t* outLen, size_t /*mkiIndex*/)
{
	// SRTCP also appends its 4-byte index (RFC 3711, section 3.4).
	return mafalda::srtpTransform(
	  in, inLen, out, outLen, SRTP_MAX_TRAILER_LEN + 4, [session](void* packet, int* len)
	  { return srtp_protect_rtcp(session, packet, len); });
}

inline srtp_err_status_t srtp_unprotect_rtcp(
  srtp_t session, const uint8_t* in, size_t inLen, uint8_t* out, size_t* outLen)
{
	return mafalda::srtpTransform(in, inLen, out, outLen, 0, [session](void* packet, int* len)
	                              { return srtp_unprotect_rtcp(session, packet, len); });
}

// libsrtp 2 wants the SSRC in network byte order, and that is what the worker passes (libsrtp 3 documents host
// order, so this call must not be "corrected" here).
inline srtp_err_status_t srtp_stream_remove(srtp_t session, uint32_t ssrc)
{
	return srtp_remove_stream(session, ssrc);
}
