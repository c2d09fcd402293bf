"""Accounts in Asterisk's files: without password, with a weak one, or restricted by an ACL."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from ringfence.features.audit import accounts as audit_accounts
from ringfence.features.audit.accounts import Account, AsteriskAccounts, read_accounts
from ringfence.host.asterisk_conf import AsteriskFiles
from ringfence.values.secret import Secret

STRONG = "f3Q9zLw27vTk"


@pytest.fixture(name="etc")
def _etc(tmp_path: Path) -> Iterator[Path]:
    """Create a folder for configuration files; nothing read from it may show a password."""
    yield tmp_path
    assert STRONG not in repr(read_accounts(AsteriskFiles(tmp_path), chan_sip=True, iax2=True, pjsip=True))


def read(etc: Path, **files: str) -> AsteriskAccounts:
    """Write files (``sip="[general]..."``) and read their accounts, with every driver loaded."""
    for name, text in files.items():
        (etc / f"{name}.conf").write_text(text, "utf-8")
    return read_accounts(AsteriskFiles(etc), chan_sip=True, iax2=True, pjsip=True)


def by_name(accounts: AsteriskAccounts) -> dict[str, Account]:
    """Return the accounts by name; all names differ here."""
    return {account.name: account for account in accounts.accounts}


def passwordless(accounts: AsteriskAccounts) -> list[str]:
    """Return the names of accounts without a password."""
    return [account.name for account in accounts.accounts if account.passwordless]


def test_chan_sip_accepts_guests_by_default(etc: Path) -> None:
    """By default chan_sip accepts guests into ``default``, and hides which accounts exist."""
    assert read(etc) == AsteriskAccounts()
    assert (read(etc, sip="").guest_context, read(etc, sip="").reveals_accounts) == ("default", False)
    given = read(etc, sip="[general]\ncontext=public\nalwaysauthreject=no\ntlsclientmethod=TLSv1\n")
    assert (given.guest_context, given.reveals_accounts, given.autocreates) == ("public", True, False)
    assert given.broken_tls == ("tlsclientmethod in sip.conf [general]",)
    assert read(etc, sip="[general]\nallowguest=no\n").guest_context == ""
    assert read(etc, sip="[general]\nautocreatepeer=persist\n").autocreates


def test_passwordless_accounts_of_chan_sip(etc: Path) -> None:
    """Accounts identified by name, or registering, count; those with a fixed address or an ACL do not."""
    found = read(
        etc,
        sip=f"""
[general]
context = public
[t](!)
type = friend
host = dynamic
secret = {STRONG}
[phone](t)
call-limit = 2
[open](t)
insecure = port,invite
[friend]
type = friend
host = 203.0.113.9
[peer]
type = peer
host = dynamic
context = inside
[user]
type = user
[trunk]
type = peer
host = 203.0.113.5
insecure = port,invite
[kept]
type = friend
host = dynamic
deny = 0.0.0.0/0.0.0.0
permit = 10.0.0.0/255.0.0.0
[permitted]
type = friend
host = dynamic
permit = 10.0.0.0/255.0.0.0
[hashed](t)
md5secret = 0cc175b9c0f1b6a831c399e269772661
[nothing]
host = dynamic
""",
    )
    assert passwordless(found) == ["open", "friend", "peer", "user", "permitted"]
    accounts = by_name(found)
    assert accounts["phone"] == Account("sip.conf", "phone", "public", registers=True, limited=True)
    assert (accounts["user"].context, accounts["peer"].context) == ("public", "inside")
    assert accounts["kept"].restricted
    assert accounts["hashed"].hashed


def test_weak_passwords(etc: Path) -> None:
    """Weak passwords are found in every file; outgoing passwords and hashes are not checked."""
    found = read(
        etc,
        sip="[201]\ntype=friend\nhost=dynamic\nsecret=201201\n"
        "[trunk]\ntype=peer\nhost=203.0.113.5\nsecret=1234\n"
        "[h]\ntype=friend\nhost=dynamic\nmd5secret=1234\n",
        users="[general]\nhassip=yes\nsecret=1234\n[6001]\nfullname=A\n[6002]\nhassip=no\n"
        f"[6003]\nsecret={STRONG}\n",
        iax="[202]\ntype=friend\nhost=dynamic\nsecret=changeme\n[out]\ntype=peer\nhost=1.2.3.4\nsecret=x\n",
        pjsip="[203]\ntype=endpoint\nauth=a203\n[a203]\ntype=auth\nusername=boss\npassword=boss2026\n"
        "[204]\ntype=endpoint\nauth=gone\n"
        "[out]\ntype=endpoint\noutbound_auth=a\nidentify_by=ip\n[a]\ntype=auth\npassword=1\n"
        "[205]\ntype=endpoint\nauth=a205\n[a205]\ntype=auth\nauth_type=md5\nmd5_cred=1234\n"
        "[206]\ntype=endpoint\nauth=a206\n[a206]\ntype=auth\npassword=\n",
        pjsip_wizard="[207]\ntype=wizard\naccepts_auth=yes\naccepts_registrations=yes\n"
        "inbound_auth/username=207\ninbound_auth/password=207\n"
        "[w]\ntype=wizard\nsends_auth=yes\noutbound_auth/password=w\nendpoint/identify_by=ip\n",
    )
    assert [account.name for account in found.accounts if account.weak] == [
        *("201", "6001", "202", "203", "206", "207")
    ]
    assert [account.name for account in found.accounts if account.hashed] == ["h", "205"]
    assert passwordless(found) == []


def test_repeated_options_are_not_compared_again(etc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asterisk uses the last ``username`` only. A template of 62 kB once took 96 s of ``check``."""
    compared: list[int] = []
    weak = audit_accounts.is_weak

    def counted(password: Secret, names: Iterable[str]) -> bool:
        compared.append(len({*names}))
        return weak(password, names)

    monkeypatch.setattr(audit_accounts, "is_weak", counted)
    usernames = "username=u\n" + "".join(f"username=u{number}\n" for number in range(100))
    found = read(
        etc,
        sip=f"[301]\ntype=friend\nhost=dynamic\nsecret={STRONG}\n{usernames}",
        iax=f"[302]\ntype=friend\nhost=dynamic\nsecret={STRONG}\n{usernames}",
        pjsip=f"[t](!)\ntype=endpoint\nauth={','.join(['a', *(f'a{n}' for n in range(20))] * 50)}\n"
        "[303](t)\n[304](t)\n"
        f"[a]\ntype=auth\npassword={STRONG}\n{usernames}"
        + "".join(f"[a{number}](a)\n" for number in range(20)),
    )

    assert not any(account.weak for account in found.accounts)
    assert len(compared) == len(["301", "302"]) + 21 + 2 * 8
    assert max(compared) <= 3


def test_passwordless_endpoints_of_pjsip(etc: Path) -> None:
    """Endpoints identified by the name in From count, and ``anonymous`` is open to everyone."""
    text = f"""
[base](!)
type = endpoint
context = inside
[anonymous](base)
[anonymous@pbx.example](base)
[named](base)
[by-address](base)
identify_by = ip,header
[phone](base)
auth = phone
aors = phone
[phone]
type = auth
password = {STRONG}
[phone]
type = aor
max_contacts = 1
[kept](base)
acl = office
"""
    found = read(etc, pjsip=text)
    assert passwordless(found) == ["anonymous", "anonymous@pbx.example", "named"]
    assert by_name(found)["phone"] == Account("pjsip.conf", "phone", "inside", registers=True)

    only_ip = "[g]\ntype = global\nendpoint_identifier_order = ip\n"
    assert passwordless(read(etc, pjsip=text + only_ip)) == []
    nobody_else = "[g]\ntype = acl\ndeny = 0.0.0.0/0.0.0.0\n"
    assert passwordless(read(etc, pjsip=text + nobody_else)) == []


def test_passwordless_accounts_of_wizard_and_iax2(etc: Path) -> None:
    """A wizard without auth is found by name too; IAX2's guest is open, an account with a key is not."""
    found = read(
        etc,
        pjsip_wizard="[a]\ntype=wizard\nremote_hosts=203.0.113.5\nendpoint/context=in\n"
        "[b]\ntype=wizard\nendpoint/acl=x\n[c]\ntype=wizard\nendpoint/identify_by=ip\n",
        iax="[guest]\ntype=user\ncontext=public\n[key]\ntype=user\nauth=rsa\ninkeys=k\n"
        "[kept]\ntype=user\ndeny=0.0.0.0/0.0.0.0\n[p]\ntype=peer\n",
    )
    assert passwordless(found) == ["guest", "a"]
    assert [by_name(found)[name].context for name in ("guest", "a")] == ["public", "in"]


def test_broken_tls_databases_and_unread_files(etc: Path) -> None:
    """A broken TLS version, accounts in a database, and unreadable files are reported."""
    found = read(
        etc,
        pjsip="[tls]\ntype=transport\nmethod=tlsv1_1\n"
        "[good]\ntype=transport\nmethod=tlsv1_2\n#include gone\n",
        extconfig="[settings]\nps_auths => odbc,asterisk\nvoicemail => odbc,asterisk\n",
    )
    assert found.broken_tls == ("method in pjsip.conf [tls]",)
    assert found.in_database == ("ps_auths",)
    assert [one.file for one in found.unread] == ["pjsip.conf"]


def test_only_drivers_that_are_loaded_count(etc: Path) -> None:
    """The old file of a driver that is not loaded is ignored."""
    read(etc, sip="[u]\ntype=user\n", iax="[g]\ntype=user\n", pjsip="[e]\ntype=endpoint\n", users="")

    assert read_accounts(AsteriskFiles(etc), chan_sip=False, iax2=False, pjsip=False) == AsteriskAccounts()
    assert passwordless(read_accounts(AsteriskFiles(etc), chan_sip=False, iax2=False, pjsip=True)) == ["e"]


def test_sections_of_one_name_and_without_a_type(etc: Path) -> None:
    """chan_sip and IAX2 ignore a section without a type, and with it the password that it has."""
    found = read(
        etc,
        sip="[a]\ntype=friend\nhost=dynamic\n[a]\nsecret=f3Q9zLw27vTk\n"
        "[b]\ntype=friend\nhost=dynamic\n[b]\ntype=friend\nsecret=f3Q9zLw27vTk\n",
        iax="[g]\ntype=user\n[g]\nsecret=f3Q9zLw27vTk\n",
    )
    assert passwordless(found) == ["a", "g"]
