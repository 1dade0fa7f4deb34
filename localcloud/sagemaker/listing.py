"""Filtering, sorting and paging, as SageMaker's List… operations do them."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from localcloud.errors import ServiceError
from localcloud.service import Params

Document = dict[str, Any]

#: What the API reference gives as MaxResults' default.
PAGE = 10


def list_page(
    documents: Iterable[Document],
    params: Params,
    *,
    name: str,
    status: str | None = None,
    default_order: str = "Descending",
) -> tuple[list[Document], Document]:
    """Return one page of documents and the response's ``{"NextToken": …}`` (empty on the last page).

    Args:
        documents: All of them.
        params: The List… request: CreationTimeAfter/Before, LastModifiedTimeAfter/Before, NameContains, StatusEquals, SortBy, SortOrder, MaxResults, NextToken.
        name: The member that identifies a document; the order of equals.
        status: The member that StatusEquals and SortBy=Status are about.
        default_order: SortOrder's default.

    Raises:
        ServiceError: The token is not one of ours.
    """
    found = [document for document in documents if _matches(document, params, name, status)]
    by = params.get("SortBy") or "CreationTime"
    member = name if by == "Name" else (status or name) if by == "Status" else by
    found.sort(key=lambda document: (document[member], document[name]), reverse=(params.get("SortOrder") or default_order) == "Descending")
    token = params.get("NextToken")
    start = 0
    if token:
        last = _read_token(token)
        # The last document of the page before may be gone by now; its place in the order is not needed to the document, only to go on without repeating.
        start = next((index + 1 for index, document in enumerate(found) if str(document[name]) == last), 0)
        if start == 0:
            raise ServiceError("ValidationException", "Invalid pagination token given.")
    end = start + (params.get("MaxResults") or PAGE)
    rest = {"NextToken": base64.urlsafe_b64encode(str(found[end - 1][name]).encode()).decode()} if end < len(found) else {}
    return found[start:end], rest


def _matches(document: Document, params: Params, name: str, status: str | None) -> bool:
    for member in ("CreationTime", "LastModifiedTime"):
        after, before = params.get(member + "After"), params.get(member + "Before")
        # AWS: "Returns only … created after the specified time"; both bounds leave the bound itself out.
        if after is not None and not document[member] > aware(after):
            return False
        if before is not None and not document[member] < aware(before):
            return False
    contains = params.get("NameContains")
    if contains and contains.lower() not in str(document[name]).lower():
        return False
    wanted = params.get("StatusEquals")
    return not (wanted and status and document[status] != wanted)


def _read_token(token: str) -> str:
    try:
        return base64.urlsafe_b64decode(token.encode()).decode()
    except (binascii.Error, UnicodeError) as error:
        raise ServiceError("ValidationException", "Invalid pagination token given.") from error


def aware(moment: datetime) -> datetime:
    """Return a request's time with its zone: moto parses times to UTC without one."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
