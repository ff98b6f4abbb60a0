"""Operations on threads that run as internal jobs, one a file: claimed, fenced and rescued like any job (L9)."""
