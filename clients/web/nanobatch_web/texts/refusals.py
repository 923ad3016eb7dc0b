"""What the gateway refuses: ``bad.FIELD.REASON`` of single fields, ``refused.REASON`` of whole calls (docs/api.md).

Figures are those that the page knows: its own limits, how long to wait.
"""

REFUSALS: dict[str, tuple[str, str]] = {
    "bad.prompts.REQUIRED": ("Write at least one prompt.", "Écrivez au moins un prompt."),
    "bad.prompts.TOO_MANY": ("At most 100 prompts go into one batch.", "Un lot contient 100 prompts au plus."),
    "bad.text.REQUIRED": (
        "It is empty: write something, or remove it.",
        "Il est vide : écrivez quelque chose ou retirez-le.",
    ),
    "bad.text.TOO_LONG": ("It is too long for this model.", "Il est trop long pour ce modèle."),
    "bad.text.MALFORMED": (
        "It holds a control character, which cannot be seen: type it anew.",
        "Il contient un caractère de contrôle, invisible : retapez-le.",
    ),
    "bad.model.REQUIRED": ("Choose a model.", "Choisissez un modèle."),
    "bad.model.UNKNOWN_MODEL": (
        "This model is no longer known: choose another.",
        "Ce modèle n'est plus connu : choisissez-en un autre.",
    ),
    "bad.api_key.REQUIRED": ("This model needs a provider key.", "Ce modèle a besoin d'une clé du fournisseur."),
    "bad.api_key.TOO_LONG": (
        "This is longer than a provider key can be.",
        "C'est plus long que ne peut l'être une clé de fournisseur.",
    ),
    "bad.api_key.MALFORMED": (
        "The key holds white space or control characters: was it pasted whole?",
        "Cette clé contient des espaces ou des caractères de contrôle : a-t-elle été collée en entier ?",
    ),
    "bad.reference_image_ids.TOO_MANY": (
        "These are more reference pictures than the model takes.",
        "Il y a plus d'images de référence que le modèle n'en accepte.",
    ),
    "bad.reference_image_ids.NOT_FOUND": (
        "A reference picture is no longer there: choose it again.",
        "Une image de référence n'est plus là : choisissez-la de nouveau.",
    ),
    "bad.reference_image_ids.MALFORMED": (
        "What was named as a reference picture is none: choose it again.",
        "Ce qui est désigné comme image de référence n'en est pas une : choisissez-la de nouveau.",
    ),
    "bad.source_image_id.NOT_FOUND": (
        "The picture that this prompt starts from is no longer there.",
        "L'image dont part ce prompt n'est plus là.",
    ),
    "bad.source_image_id.MALFORMED": (
        "What this prompt starts from is no picture.",
        "Ce dont part ce prompt n'est pas une image.",
    ),
    "bad.aspect_ratio.NOT_OFFERED": (
        "This model has no such aspect ratio: choose another.",
        "Ce modèle ne propose pas ce format : choisissez-en un autre.",
    ),
    "bad.image_size.NOT_OFFERED": (
        "This model has no such size: choose another.",
        "Ce modèle ne propose pas cette taille : choisissez-en une autre.",
    ),
    "bad.variations.OUT_OF_RANGE": ("1 to 4 pictures per prompt.", "De 1 à 4 images par prompt."),
    "bad.max_cost_micros.OUT_OF_RANGE": (
        "Give an amount of 0 or more (at most 9 trillion dollars), or nothing.",
        "Indiquez un montant d'au moins 0 (9 000 milliards de dollars au plus), ou rien.",
    ),
    "bad.result_ids.TOO_MANY": ("These are too many pictures at once.", "Il y a trop d'images à la fois."),
    "bad.result_ids.NOT_FOUND": ("A picture is no longer there.", "Une image n'est plus là."),
    "bad.result_ids.NOT_RETRIABLE": (
        "Only what has failed or was cancelled can be tried again.",
        "Seul ce qui a échoué ou a été annulé peut être réessayé.",
    ),
    "bad.chunk.TOO_LONG": ("The picture is larger than 10 MB.", "L'image dépasse 10 Mo."),
    "bad.chunk.REQUIRED": ("The picture is empty.", "L'image est vide."),
    "refused.MORE_VIOLATIONS": ("There is more: mend this first.", "Il y en a d'autres : corrigez d'abord ceci."),
    # Whole calls
    "refused.INVALID_REQUEST": ("The server does not take this request.", "Le serveur n'accepte pas cette demande."),
    "refused.TOO_LARGE": ("The picture is larger than 10 MB.", "L'image dépasse 10 Mo."),
    "refused.NOT_A_PICTURE": ("This is neither PNG, JPEG nor WebP.", "Ce n'est ni du PNG, ni du JPEG, ni du WebP."),
    "refused.PICTURE_TOO_LARGE": (
        "The picture is too large: make it smaller.",
        "L'image est trop grande : réduisez-la.",
    ),
    "refused.PICTURE_ANIMATED": (
        "The picture moves: choose a still one.",
        "L'image est animée : choisissez une image fixe.",
    ),
    "refused.PICTURE_DAMAGED": (
        "The picture is damaged: save it anew and choose it again.",
        "L'image est abîmée : enregistrez-la de nouveau et choisissez-la encore.",
    ),
    "refused.PICTURE_CHECK_FAILED": (
        "The picture could not be checked: save it anew and choose it again.",
        "L'image n'a pas pu être vérifiée : enregistrez-la de nouveau et choisissez-la encore.",
    ),
    "refused.PICTURE_REFUSED": ("This picture is not taken.", "Cette image n'est pas acceptée."),
    "refused.EXECUTION_NOT_FOUND": ("There is no such batch.", "Ce lot n'existe pas."),
    "refused.RESULT_NOT_FOUND": ("This picture is no longer there.", "Cette image n'est plus là."),
    "refused.IMAGE_NOT_FOUND": ("This picture is no longer there.", "Cette image n'est plus là."),
    "refused.REQUEST_ID_REUSED": (
        "This was already started with other content. Load the page anew.",
        "Ceci a déjà été lancé avec un autre contenu. Rechargez la page.",
    ),
    "refused.EXECUTION_FINAL": ("This batch has ended.", "Ce lot est terminé."),
    "refused.EXECUTION_ACTIVE": (
        "This batch has not ended: cancel it first, and wait for what is still out.",
        "Ce lot n'est pas terminé : annulez-le d'abord et attendez les appels en cours.",
    ),
    "refused.KEY_NEEDED": (
        "The key of this batch was wiped: give one again.",
        "La clé de ce lot a été effacée : donnez-en une de nouveau.",
    ),
    "refused.NOTHING_TO_RETRY": ("Nothing has failed here.", "Rien n'a échoué ici."),
    "refused.CALL_STILL_OPEN": (
        "A call for one of these pictures is still out: try again when it has ended.",
        "Un appel est encore en cours pour une de ces images : réessayez quand il sera terminé.",
    ),
    "refused.TOO_MANY_CALLS": (
        "You have asked too often within a minute. Try again in {wait}.",
        "Vous avez fait trop de demandes en une minute. Réessayez dans {wait}.",
    ),
    "refused.TOO_MANY_WATCHES": (
        "You look at too many batches at once: close some tabs.",
        "Vous suivez trop de lots à la fois : fermez des onglets.",
    ),
    "refused.WATCHER_TOO_SLOW": (
        "This page could not keep up. It looks again by itself.",
        "Cette page n'a pas pu suivre. Elle reprend d'elle-même.",
    ),
    "refused.READER_TOO_SLOW": (
        "The download stood still for too long: begin again.",
        "Le téléchargement s'est arrêté trop longtemps : recommencez.",
    ),
    "refused.UPLOAD_TOO_SLOW": (
        "The picture did not arrive in time: choose it again.",
        "L'image n'est pas arrivée à temps : choisissez-la de nouveau.",
    ),
    "refused.DISK_FULL": (
        "The server has no room left. Nothing was started; tell who runs it.",
        "Le serveur n'a plus de place. Rien n'a été lancé ; prévenez qui le gère.",
    ),
    "refused.STARTING": (
        "The server is starting. Try again in a moment.",
        "Le serveur démarre. Réessayez dans un instant.",
    ),
    "refused.STORAGE_UNAVAILABLE": (
        "A part of the server gives no answer. Nothing was lost; try again in a moment.",
        "Une partie du serveur ne répond pas. Rien n'est perdu ; réessayez dans un instant.",
    ),
    "refused.DATABASE_UNAVAILABLE": (
        "The server's database gives no answer. Nothing was lost; try again in a moment.",
        "La base de données du serveur ne répond pas. Rien n'est perdu ; réessayez dans un instant.",
    ),
    "refused.GENERATOR_UNAVAILABLE": (
        "The part of the server that asks providers is not there. Try again in a moment.",
        "La partie du serveur qui interroge les fournisseurs est absente. Réessayez dans un instant.",
    ),
    "refused.PICTURE_CHECKER_UNAVAILABLE": (
        "Pictures cannot be checked just now. Try again in a moment.",
        "Les images ne peuvent pas être vérifiées en ce moment. Réessayez dans un instant.",
    ),
    "refused.PICTURE_STORE_UNAVAILABLE": (
        "The server's store of pictures gives no answer. Try again in a moment.",
        "Le stockage d'images du serveur ne répond pas. Réessayez dans un instant.",
    ),
    "refused.PICTURE_LOST": (
        "The server has lost this picture. Tell who runs it.",
        "Le serveur a perdu cette image. Prévenez qui le gère.",
    ),
    "refused.TOKEN_MISSING": ("Sign in first.", "Connectez-vous d'abord."),
    "refused.TOKEN_MALFORMED": (
        "Your token cannot be read: sign in again.",
        "Votre jeton est illisible : reconnectez-vous.",
    ),
    "refused.TOKEN_INVALID": (
        "Your token is no longer taken: sign in again.",
        "Votre jeton n'est plus accepté : reconnectez-vous.",
    ),
    "refused.TOKEN_EXPIRED": (
        "Your token has expired: sign in with another.",
        "Votre jeton a expiré : connectez-vous avec un autre.",
    ),
    "refused.UNAUTHENTICATED": ("Sign in first.", "Connectez-vous d'abord."),
    "refused.ADMIN_ONLY": ("Only admins may do this.", "Seuls les administrateurs peuvent faire cela."),
    "refused.INTERNAL": (
        "A fault of the server, not yours. Number {incident} helps who runs it to find it.",
        "Une erreur du serveur, pas la vôtre. Le numéro {incident} aide qui le gère à la trouver.",
    ),
    "refused.DEADLINE_EXCEEDED": (
        "The server did not answer in time. Look at the history before you try again.",
        "Le serveur n'a pas répondu à temps. Regardez l'historique avant de réessayer.",
    ),
    # What a provider says when it is asked about a key
    "refused.RATE_LIMITED": (
        "The provider is asked too often just now. Try again in a moment.",
        "Le fournisseur reçoit trop de demandes en ce moment. Réessayez dans un instant.",
    ),
    "refused.QUOTA_DAY_USED_UP": (
        "The provider's daily quota of this key is used up. Try again tomorrow.",
        "Le quota journalier de cette clé est épuisé chez le fournisseur. Réessayez demain.",
    ),
    "refused.PROVIDER_OVERLOADED": (
        "The provider is overloaded. Try again in a moment.",
        "Le fournisseur est surchargé. Réessayez dans un instant.",
    ),
    "refused.PROVIDER_ERROR": (
        "The provider has failed. Try again later.",
        "Le fournisseur est en panne. Réessayez plus tard.",
    ),
    "refused.PROVIDER_UNREACHABLE": (
        "The provider cannot be reached. Look at the server's network, then try again.",
        "Le fournisseur est injoignable. Vérifiez le réseau du serveur, puis réessayez.",
    ),
    "refused.PROVIDER_UNKNOWN": (
        "A part of the server is too old for this provider. Tell who runs it.",
        "Une partie du serveur est trop ancienne pour ce fournisseur. Prévenez qui le gère.",
    ),
    "refused.PROVIDER_TIMED_OUT": (
        "The provider did not answer in time. Try again.",
        "Le fournisseur n'a pas répondu à temps. Réessayez.",
    ),
    "refused.CALL_TIMED_OUT": (
        "The provider did not answer in time. Try again.",
        "Le fournisseur n'a pas répondu à temps. Réessayez.",
    ),
    "refused.CONNECTION_LOST": (
        "The connection to the provider broke. Try again.",
        "La connexion au fournisseur a été coupée. Réessayez.",
    ),
    "refused.ANSWER_UNREADABLE": (
        "The provider's answer was garbled. Try again.",
        "La réponse du fournisseur était illisible. Réessayez.",
    ),
    "refused.KEY_CHECK_TIMEOUT": (
        "The provider did not answer about the key. Try again later.",
        "Le fournisseur n'a pas répondu au sujet de la clé. Réessayez plus tard.",
    ),
}
